# Consul's policy for an operator, who makes and removes networks, and removes hosts that are gone.
key_prefix "crosshost/" { policy = "write" }
