//! Verdicts on unit files against those who read them on a machine: systemd, and Quadlet where there is one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests may stop at the first surprise too"
)]

mod page;
mod promises;
mod quadlet;
mod systemd;

use sealift_model::diagnostic::Severity;
use sealift_unitfile::{UnitFile, verify};

/// What we say of a file: whether it is refused, and everything that is found.
fn verdict(name: &str, text: &str) -> (bool, Vec<String>) {
    let findings = verify(&name.parse().unwrap(), &UnitFile::parse(text));
    let refused = findings.iter().any(|finding| finding.severity == Severity::Error);
    (refused, findings.iter().map(|finding| finding.render(name, text)).collect())
}

mod any_text {
    use proptest::prelude::*;

    use crate::promises::unit_holds;

    /// Unit files with slips in them: pieces that mean something, in any order.
    fn nearly_a_unit_file() -> impl Strategy<Value = String> {
        let pieces = [
            "[Service]\n",
            "[X-Fleet]\n",
            "[X-Fleet]",
            "[Unit]\n",
            "[Container]\n",
            "[Mount]\n",
            "[Serivce]\n",
            "[Unit",
            "ExecStart=",
            "Where=",
            "Type=",
            "Memory=",
            "MemoryMax=",
            "CPU=",
            "Spread=",
            "Replicas=",
            "Priority=",
            "Preempt=",
            "CutOff=",
            "UpdateMaxOut=",
            "UpdateHold=",
            "UpdateOrder=",
            "UpdateCanary=",
            "PreferMachineOf=",
            "PreferMachineMetadata=",
            "MachineClass=",
            "MachineOf=",
            "Global=",
            "ServiceName=",
            "Volume=",
            "RestartSec=",
            "After=",
            "a.volume",
            "1.5G",
            "1",
            "50%",
            "10s",
            "start-first",
            "stop",
            "yes",
            "*",
            "zone",
            "\"a=b\" \"c\"",
            "'",
            "\"",
            "%i",
            "/a",
            "./x",
            "=",
            " ",
            "\\",
            "\\\n",
            "\n",
            "\n",
            "\n",
            "\r\n",
            "#",
            ";",
            "\u{e4}",
            "\u{feff}",
        ];
        prop::collection::vec(prop::sample::select(pieces.to_vec()), 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn is_kept_and_judged_inside_of_itself(
            kind in any::<u8>(),
            text in prop_oneof![any::<String>(), nearly_a_unit_file()],
            drop_in in prop_oneof![any::<String>(), nearly_a_unit_file()],
        ) {
            unit_holds(kind, &text, &drop_in);
        }
    }
}
