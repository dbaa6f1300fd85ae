//! Each fault is what it says, and its undo takes it away.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sealift_lab::hosts::{Host, Volume};

use super::{has_hosts, options, reached_from_outside, reaches, serve, up, wait_for};

/// A service that counts in a file, which is how one sees whether a host goes on.
const COUNTS: &str = "[Service]\nExecStart=/bin/sh -c 'while :; do echo >>/var/count; sleep 0.02; done'\n";
/// One that says back what it is told, a process a connection.
const ECHO_SOCKET: &str = "[Socket]\nListenStream=7\nAccept=yes\n";
const ECHO: &str = "[Service]\nExecStart=/bin/cat\nStandardInput=socket\n";

fn count(host: &Host) -> u64 {
    std::fs::metadata(host.path("/var/count")).map_or(0, |file| file.len())
}

/// Waits until a host has done some work.
fn works(host: &Host) {
    let before = count(host);
    wait_for("the host works", || count(host) > before + 5);
}

fn main_pid(host: &Host) -> String {
    host.run("systemctl", &["show", "--property=MainPID", "counts.service"]).unwrap()
}

#[test]
fn power_comes_and_goes() {
    if !has_hosts() {
        return;
    }
    let hosts = up(options(2));
    let [one, two] = hosts.all() else { panic!() };
    one.write("/etc/systemd/system/echo@.service", ECHO).unwrap();
    serve(one, "echo.socket", ECHO_SOCKET);
    serve(two, "counts.service", COUNTS);
    one.run("sh", &["-c", "echo disk >/var/kept; echo memory >/run/lost"]).unwrap();
    let mut stream =
        hosts.network(|| TcpStream::connect(SocketAddr::from((one.address(), 7)))).unwrap().unwrap();
    let mut said = [0; 5];
    stream.write_all(b"hello").unwrap();
    stream.read_exact(&mut said).unwrap();

    one.kill().unwrap();
    assert!(!one.is_on() && one.run("true", &[]).is_err());
    assert!(one.kill().is_err(), "it is off");
    assert!(!reaches(two, one));
    works(two);
    // Nobody is told that a connection has ended, as when a machine loses its power.
    stream.set_nonblocking(true).unwrap();
    assert_eq!(stream.read(&mut said).unwrap_err().kind(), ErrorKind::WouldBlock);
    // The disk can be looked at in between.
    assert_eq!(std::fs::read_to_string(one.path("/var/kept")).unwrap(), "disk\n");

    one.start().unwrap();
    assert!(one.start().is_err(), "it is on");
    assert_eq!(one.run("cat", &["/var/kept"]).unwrap(), "disk\n");
    assert!(one.run("cat", &["/run/lost"]).is_err());
    assert!(reaches(two, one));

    // In order: services are stopped, which they can tell.
    let text = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\nExecStop=/bin/touch /var/stopped\n";
    serve(one, "orderly.service", text);
    one.power_off().unwrap();
    assert!(!one.is_on() && one.path("/var/stopped").is_file());
    one.start().unwrap();
    // All of what a host said is kept, over all its boots.
    let folder = tempfile::tempdir().unwrap();
    hosts.save_logs(folder.path()).unwrap();
    let journal = std::fs::read_to_string(folder.path().join("h1.journal")).unwrap();
    assert!(journal.matches("Journal started").count() == 3, "{journal}");
}

#[test]
fn a_frozen_host_stands_still_and_goes_on() {
    if !has_hosts() {
        return;
    }
    let hosts = up(options(2));
    let [one, two] = hosts.all() else { panic!() };
    for host in hosts.all() {
        serve(host, "counts.service", COUNTS);
        works(host);
    }
    let pid = main_pid(one);
    one.freeze().unwrap();
    let before = count(one);
    works(two);
    assert_eq!(count(one), before, "it goes on");
    one.thaw().unwrap();
    works(one);
    assert_eq!(main_pid(one), pid);
    // One that is frozen can lose its power.
    one.freeze().unwrap();
    one.kill().unwrap();
    one.start().unwrap();
    serve(one, "counts.service", COUNTS);
    works(one);
}

#[test]
fn the_network_is_cut_and_set_apart() {
    if !has_hosts() {
        return;
    }
    let hosts = up(options(3));
    let [one, two, three] = hosts.all() else { panic!() };
    serve(one, "counts.service", COUNTS);

    one.cut().unwrap();
    assert!(!reaches(one, two) && !reaches(two, one) && !reached_from_outside(&hosts, one));
    assert!(reaches(two, three) && reaches(one, one));
    works(one);
    one.uncut().unwrap();
    wait_for("it is reached again", || {
        reaches(one, two) && reaches(two, one) && reached_from_outside(&hosts, one)
    });

    let asked = |host: &Host| {
        let text = host.run("nstat", &["-asz", "IcmpInEchos"]).unwrap();
        text.split_whitespace()
            .skip_while(|word| *word != "IcmpInEchos")
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let before = asked(one);
    hosts.partition(&[one], &[two, three]).unwrap();
    for peer in [two, three] {
        assert!(!reaches(one, peer) && !reaches(peer, one));
    }
    assert_eq!(asked(one), before, "a question arrived from the other side");
    assert!(reaches(two, three) && reaches(three, two) && reached_from_outside(&hosts, one));
    hosts.heal().unwrap();
    // A question for an address that was not answered is repeated every second.
    for host in hosts.all() {
        wait_for("all are reached again", || hosts.all().iter().all(|peer| reaches(host, peer)));
    }

    // One way only: what is asked arrives, and the answer does not.
    hosts.deafen(&[one], &[two]).unwrap();
    let before = (asked(one), asked(two));
    assert!(!reaches(two, one) && asked(one) > before.0, "two's question did not arrive");
    assert!(!reaches(one, two) && asked(two) == before.1, "one's question arrived");
    assert!(reaches(one, three) && reaches(two, three));
    hosts.heal().unwrap();
    wait_for("it is reached again", || reaches(one, two));
}

/// How long a large packet and its answer take, in milliseconds.
fn round_trip(from: &Host, to: &Host) -> f64 {
    let said = from.run("ping", &["-c", "1", "-W", "20", "-s", "20000", to.name()]).unwrap();
    let time = said.split_once(" time=").unwrap().1;
    time.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_link_is_slow_and_loses() {
    if !has_hosts() {
        return;
    }
    let hosts = up(options(3));
    let [one, two, three] = hosts.all() else { panic!() };
    assert!(reaches(one, two));
    one.slow_down(256).unwrap();
    // 20 kB at 32 kB a second, there and back; the queue lets the first 4 kB through.
    let slow = round_trip(one, two);
    assert!(slow > 900.0, "{slow} ms");
    let fast = round_trip(two, three);
    assert!(fast < slow / 2.0, "{fast} ms beside {slow} ms");
    one.speed_up().unwrap();
    let again = round_trip(one, two);
    assert!(again < slow / 2.0, "{again} ms after {slow} ms");

    let arrive = |percent| {
        one.lose(percent).unwrap();
        let said = one
            .command("ping")
            .unwrap()
            .args(["-q", "-i", "0.002", "-c", "200", "-W", "1", "h2"])
            .output()
            .unwrap();
        let said = String::from_utf8(said.stdout).unwrap();
        let (_, rest) = said.split_once("transmitted, ").unwrap();
        rest.split(' ').next().unwrap().parse::<u32>().unwrap()
    };
    // A quarter of them, give or take.
    let some = arrive(50);
    assert!((10..120).contains(&some), "{some} of 200");
    assert_eq!(arrive(100), 0);
    assert!(reaches(two, three));
    assert_eq!(arrive(0), 200);
}

#[test]
fn a_disk_is_full_and_a_clock_is_wrong() {
    if !has_hosts() {
        return;
    }
    let mut options = options(2);
    options.volumes.push(Volume { path: "/var/lib/small".into(), mebibytes: 4 });
    options.clocked.push("clock".into());
    let hosts = up(options);
    let [one, two] = hosts.all() else { panic!() };

    let put = "cp /bin/true /var/lib/small/file";
    one.run("sh", &["-c", "echo before >/var/lib/small/before"]).unwrap();
    one.fill("/var/lib/small").unwrap();
    let error = one.run("sh", &["-c", put]).unwrap_err();
    assert!(error.to_string().contains("No space left on device"), "{error}");
    one.run("sh", &["-c", "echo something >/var/lib/file"]).unwrap();
    two.run("sh", &["-c", put]).unwrap();
    one.unfill("/var/lib/small").unwrap();
    one.run("sh", &["-c", put]).unwrap();
    // It is part of the host's disk.
    one.kill().unwrap();
    assert_eq!(std::fs::read_to_string(one.path("/var/lib/small/before")).unwrap(), "before\n");
    one.start().unwrap();
    assert_eq!(one.run("cat", &["/var/lib/small/before"]).unwrap(), "before\n");

    // It tells the time again and again, so that one sees that a running service follows.
    let tells = "[Service]\nExecStart=/bin/bash -c 'while :; do printf \"%%(%%s)T\" >/var/time.new; \
                 mv /var/time.new /var/time; sleep 0.02; done'\n";
    let ahead = |host: &Host| {
        let text = std::fs::read_to_string(host.path("/var/time")).ok()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Some(Duration::from_secs(text.parse().ok()?).as_secs_f64() - now.as_secs_f64())
    };
    let is_ahead =
        |host: &Host, seconds: f64| ahead(host).is_some_and(|ahead| (ahead - seconds).abs() < 30.0);
    for host in hosts.all() {
        serve(host, "clock.service", tells);
        wait_for("it has the right time", || is_ahead(host, 0.0));
    }
    one.set_clock(3600).unwrap();
    wait_for("it is ahead", || is_ahead(one, 3600.0));
    assert!(is_ahead(two, 0.0));
    one.set_clock(-3600).unwrap();
    wait_for("it is behind", || is_ahead(one, -3600.0));
    one.set_clock(0).unwrap();
    wait_for("it has the right time again", || is_ahead(one, 0.0));
}
