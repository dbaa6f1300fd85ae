//! `sealift plan` and `sealift machine rebalance` as a user meets them.

use serde_json::Value;

use crate::host::Dev;
use crate::wercker::said;

const SLEEP: &str = "[Service]\nExecStart=/bin/sleep 1d\n";

/// The lines of a command's JSON.
fn lines(dev: &Dev, args: &[&str]) -> (i32, Vec<Value>) {
    let args: Vec<_> = args.iter().copied().chain(["--output", "json"]).collect();
    let (code, stdout, _) = said(&dev.run(&args));
    (code, stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

#[test]
fn what_would_be_done_is_told_and_not_done() {
    let dev = Dev::start();
    let files = dev.dir.path().join("files");
    std::fs::create_dir(&files).unwrap();
    let write = |name: &str, text: &str| {
        let path = files.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let web = write("web.service", SLEEP);
    write("nap@.service", SLEEP);
    let naps = format!("{}/nap@{{1..3}}", files.display());
    let far = write("far.service", &format!("{SLEEP}\n[X-Fleet]\nMachineMetadata=region=moon\n"));
    let machine = dev.machine()["name"].as_str().unwrap().to_owned();

    let (code, text, _) = said(&dev.run(&["plan", "start", &web, &naps]));
    assert_eq!(code, 0, "{text}");
    assert!(text.contains(&format!("nap@2.service comes to {machine}\n")), "{text}");
    assert_eq!(text.lines().last(), Some("4 come"), "{text}");
    let (code, text, _) = said(&dev.run(&["plan", "start", &web, &far]));
    assert_eq!(code, 1, "a script sees that something would be left over: {text}");
    assert!(text.contains("far.service would be on no machine") && text.contains("region=moon"), "{text}");
    assert_eq!(text.lines().last(), Some("1 comes; 1 would be on no machine"), "{text}");
    assert_eq!(dev.json(&["unit", "list"])["items"], serde_json::json!([]), "nothing is known of them");

    dev.ok(&["unit", "start", &web]);
    for (args, wanted) in [
        (&["plan", "stop", "web"][..], format!("web.service stays on {machine}: it is stopped\n")),
        (&["plan", "unload", "w*"], format!("web.service leaves {machine}: the unit is to be inactive\n")),
        (&["plan", "destroy", "web.service"], format!("web.service leaves {machine}: the unit is gone\n")),
        (&["plan", "start", &web], "nothing would be done\n".to_owned()),
        (&["plan", "cordon", &machine], "nothing would be done\n".to_owned()),
        (&["plan", "metadata", &machine, "disk=ssd"], "nothing would be done\n".to_owned()),
        (&["plan", "rebalance"], "nothing would be done\n".to_owned()),
        (&["machine", "rebalance", "--dry-run"], "nothing would be done\n".to_owned()),
        (&["machine", "rebalance"], "nothing can be evened out\n".to_owned()),
    ] {
        let text = dev.ok(args);
        assert!(text.contains(&wanted), "sealift {args:?}: {text}");
    }
    write("web.service", &SLEEP.replace("1d", "2d"));
    let (code, text, warned) = said(&dev.run(&["plan", "start", &web]));
    assert!(code == 0 && text == "nothing would be done\n" && warned.contains("--replace"), "{text}{warned}");
    let text = dev.ok(&["plan", "start", "--replace", &web]);
    assert!(text.starts_with(&format!("web.service stays on {machine}: its text is another\n")), "{text}");

    let (code, said) = lines(&dev, &["plan", "lose", &machine]);
    assert_eq!((code, &said[0]["step"], &said[0]["unit"]), (1, &"nowhere".into(), &"web.service".into()));
    assert_eq!(said[1]["summary"]["nowhere"], 1, "{said:?}");
    let (code, said) = lines(&dev, &["plan", "drain", &machine]);
    assert_eq!(
        (code, &said[0]["step"], &said[0]["reason"]),
        (1, &"leave".into(), &"the machine is drained".into())
    );
    let (code, _, text) = self::said(&dev.run(&["plan", "drain", "mars"]));
    assert!(code == 4 && text.contains("there is no machine mars"), "{text}");
    let (code, _, text) = self::said(&dev.run(&["machine", "rebalance", "--max", "0"]));
    assert!(code == 2 && text.contains("1..=100"), "{text}");
    let units = dev.json(&["unit", "list"]);
    let status = units["items"][0]["statuses"].as_object().unwrap().values().next().unwrap();
    assert_eq!(status["active"], "active", "it runs as before");
}
