//! The `portmap` binary.

fn main() -> std::process::ExitCode {
    cni::run(portmap::Portmap)
}
