//! The plugins' one program. The name of the file by which it is started says which plugin it is.
//!
//! A runtime starts `overlay`, and `overlay` runs `ipam-kv` on a thread instead of starting it, if `CNI_PATH` has this very file
//! under that name, too (`docs/decisions/0022-one-plugin-binary.md`). Copies work as well: then each plugin is a process.

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

use cni::{BuiltIn, Plugin};
use ipam_kv::IpamKv;
use overlay::Overlay;
use portmap::Portmap;

const BUILT_IN: &[BuiltIn] = &[BuiltIn::of::<IpamKv>()];

fn main() -> ExitCode {
    let path = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&path).file_name().and_then(OsStr::to_str);
    let name = name.unwrap_or_default();
    // Also `my-portmap`, for a folder that has another plugin of that name.
    let is = |plugin: &str| {
        let before = name.strip_suffix(plugin);
        before.is_some_and(|before| before.is_empty() || before.ends_with('-'))
    };
    if is(Overlay::NAME) {
        cni::run_with(Overlay::begin(), BUILT_IN)
    } else if is(IpamKv::NAME) {
        cni::run(IpamKv)
    } else if is(Portmap::NAME) {
        cni::run(Portmap)
    } else {
        cni::refuse(name, &[Overlay::NAME, IpamKv::NAME, Portmap::NAME])
    }
}
