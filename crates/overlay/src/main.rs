//! The `overlay` binary.

fn main() -> std::process::ExitCode {
    cni::run(overlay::Overlay::begin())
}
