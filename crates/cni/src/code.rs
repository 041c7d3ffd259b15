//! The error codes of all plugins, as one table. `docs/errors.md` has a row for each, which `tests/codes.rs` compares with it.
//! Codes below 100 are those of the specification (section "Error") or of the reference library; ours begin at 100.

macro_rules! codes {
    ($($name:ident = $code:literal, $plugins:literal, $meaning:literal;)*) => {
        $(#[doc = $meaning] pub const $name: u32 = $code;)*

        /// All codes, ascending: the code, the plugins that return it, its meaning.
        pub const ALL: &[(u32, &str, &str)] = &[$(($code, $plugins, $meaning)),*];
    };
}

codes! {
    VERSION = 1, "all plugins", "`cniVersion` is not supported, or has no such verb";
    UNSUPPORTED = 2, "`overlay`", "a field that the plugin refuses";
    ENV = 4, "all plugins", "an environment variable is missing or invalid";
    IO = 5, "all plugins", "reading or writing failed";
    DECODE = 6, "all plugins", "the input is not what the specification says";
    CONFIG = 7, "all plugins", "a value of the configuration cannot be used";
    NETNS = 8, "`overlay`", "`CNI_NETNS` cannot be used";
    AGAIN = 11, "all plugins", "try again later";
    NOT_READY = 50, "all plugins, STATUS", "every ADD would fail";
    DUPLICATE = 100, "`overlay`, `ipam-kv`", "the attachment exists already, or may exist";
    IFNAME = 101, "`overlay`", "the interface name is taken in the container";
    POOL = 102, "`overlay`, `ipam-kv`", "no address is left";
    DIFFERS = 103, "`overlay`, `ipam-kv`", "the network or the host is not set up as the configuration says";
    COLLIDES = 104, "`overlay`, `ipam-kv`", "a new network would collide with another";
    STORE = 105, "`overlay`, `ipam-kv`", "the store's answer cannot be understood";
    DENIED = 106, "`overlay`, `ipam-kv`", "the store denies access";
    KERNEL = 107, "`overlay`, `portmap`", "the kernel refused";
    ADDRESS = 108, "`ipam-kv`", "a requested address or MAC cannot be given";
    DEVIATION = 110, "all plugins, CHECK", "the attachment differs from its result";
    PORT = 111, "`portmap`", "a port of the host is not available";
    FAMILY = 112, "`portmap`", "a port was requested for an IP version of which the container has no address";
    DELEGATE = 198, "`overlay`", "the IPAM plugin died, or failed without an error object";
    INTERNAL = 199, "all plugins", "a bug of ours";
}
