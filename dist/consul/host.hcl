# Consul's policy for a host on all networks. HOST is its name in the cluster. docs/security.md has one for a host on some networks.
key_prefix "crosshost/v1" { policy = "read" }
key "crosshost/v1/nodes/HOST" { policy = "write" }
key_prefix "crosshost/v1/ledgers/" { policy = "write" }
key_prefix "crosshost/v1/acks/" { policy = "write" }
key_prefix "crosshost/v1/blocks/" { policy = "write" }
key_prefix "crosshost/v1/leases/" { policy = "write" }
