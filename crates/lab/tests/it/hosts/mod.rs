//! Hosts with a systemd of their own: that they boot, that faults are what they say, and that nothing is left.
//!
//! They need root and what scripts/install-deps installs; `SEALIFT_SKIP=hosts` leaves them out, loudly.

mod cluster;
mod etcd;
mod faults;
mod leave;
mod talk;

use std::time::{Duration, Instant};

use sealift_lab::hosts::{self, Host, Hosts, Options, RETRY};

/// For what takes a second on a machine with nothing else to do.
const LONG: Duration = Duration::from_secs(60);

/// Whether to test with hosts.
fn has_hosts() -> bool {
    let skips = std::env::var("SEALIFT_SKIP").is_ok_and(|skip| skip.split(',').any(|part| part == "hosts"));
    if skips {
        println!("SKIPPED: SEALIFT_SKIP=hosts, no hosts are booted");
    }
    !skips
}

fn options(count: usize) -> Options {
    Options::new(count, hosts::base(None).unwrap())
}

/// Hosts that are up.
fn up(options: Options) -> Hosts {
    match Hosts::up(options) {
        Ok(hosts) => hosts,
        Err(error) => panic!("{error} (or leave these tests out with SEALIFT_SKIP=hosts): {error:?}"),
    }
}

/// Waits for something that a host does by itself.
fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < LONG, "{what}: not within {LONG:?}");
        std::thread::sleep(RETRY);
    }
}

/// Whether this host reaches an address now.
fn reaches(from: &Host, to: &Host) -> bool {
    let to = to.address().to_string();
    from.run("ping", &["-c", "1", "-W", "1", &to]).is_ok()
}

fn reached_from_outside(hosts: &Hosts, to: &Host) -> bool {
    // This machine's own ping need not be there: a question to a port that nobody listens on is answered, too.
    let address = std::net::SocketAddr::from((to.address(), 1));
    let asked =
        hosts.network(|| std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1))).unwrap();
    asked.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
}

/// Puts a service on a host and starts it.
fn serve(host: &Host, name: &str, text: &str) {
    host.write(&format!("/etc/systemd/system/{name}"), text).unwrap();
    host.run("systemctl", &["daemon-reload"]).unwrap();
    host.run("systemctl", &["start", name]).unwrap();
}

#[test]
fn hosts_boot_and_are_hosts_of_their_own() {
    if !has_hosts() {
        return;
    }
    let begun = Instant::now();
    let (hosts, other) = std::thread::scope(|scope| {
        let other = scope.spawn(|| up(options(1)));
        (up(options(3)), other.join().unwrap())
    });
    println!("3 hosts, and 1 beside them, were up after {:?}", begun.elapsed());
    for host in hosts.all() {
        let waited = host.run_within("systemctl", &["is-system-running", "--wait"], LONG);
        assert_eq!(waited.unwrap().trim(), "running", "{}", host.name());
        assert_eq!(host.run("hostname", &[]).unwrap().trim(), host.name());
        assert_eq!(host.run("cat", &["/etc/machine-id"]).unwrap().trim(), host.machine_id());
        for peer in hosts.all() {
            host.run("ping", &["-c", "1", "-W", "5", peer.name()]).unwrap();
        }
        assert!(reached_from_outside(&hosts, host));
        host.write("/etc/mine", host.name()).unwrap();
    }
    for host in hosts.all() {
        assert_eq!(host.run("cat", &["/etc/mine"]).unwrap(), host.name());
    }
    // The set beside them has the same names and addresses, and is another world.
    let alone = other.host(1).unwrap();
    assert_eq!(alone.address(), hosts.host(1).unwrap().address());
    assert!(alone.run("cat", &["/etc/mine"]).is_err());
    assert!(!reaches(alone, hosts.host(2).unwrap()));
    assert!(other.host(2).is_err());
}

#[test]
fn a_set_that_cannot_be_is_refused() {
    if !has_hosts() {
        return;
    }
    let error = Hosts::up(options(0)).unwrap_err();
    assert_eq!(error.to_string(), "0 hosts are not to be had: 1 to 99");
    let error = Hosts::up(Options::new(1, "/nowhere".into())).unwrap_err();
    assert_eq!(error.to_string(), "there is no tree to boot from at /nowhere; scripts/host-image makes it");
}
