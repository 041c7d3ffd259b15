//! A call of `ipam-kv` as a runtime makes it, up to the checked configuration.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use cni::{Call, Error};
use ipam_kv::config::Conf;

/// The host's own settings: this repository's example, so that a machine's own cannot matter.
static CONFIG_FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let mut files = above.map(|folder| folder.join("cni-conf/config.json"));
    files
        .find(|file| file.is_file())
        .expect("cni-conf/config.json")
});

/// The call of `command` with this configuration and these `CNI_ARGS`.
pub fn call(command: &str, args: &str, stdin: &[u8]) -> Result<Call, Error> {
    let env = [
        ("CNI_COMMAND", command.into()),
        ("CNI_CONTAINERID", "c1".into()),
        ("CNI_NETNS", "/run/netns/c1".into()),
        ("CNI_IFNAME", "eth0".into()),
        ("CNI_PATH", "/opt/cni/bin".into()),
        ("CNI_ARGS", args.into()),
        ("CROSSHOST_CONFIG", CONFIG_FILE.clone().into_os_string()),
    ];
    let env: [(&str, OsString); 7] = env;
    Call::new(
        env.map(|(name, value)| (name.into(), value)).into(),
        stdin.to_vec(),
    )
}

/// The same, and its configuration as an ADD reads it.
pub fn read(command: &str, args: &str, stdin: &[u8]) -> Result<(Call, Conf), Error> {
    let call = call(command, args, stdin)?;
    let conf = Conf::read(&call)?;
    Ok((call, conf))
}
