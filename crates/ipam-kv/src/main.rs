//! The `ipam-kv` binary.

fn main() -> std::process::ExitCode {
    cni::run(ipam_kv::IpamKv)
}
