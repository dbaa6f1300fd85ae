//! What can go wrong with hosts and between them, each with its undo.
//!
//! Power is in `host`. What is here about the network is done on the bridge, by rules and by queues: a host notices nothing
//! but what it sends and gets. Rules hold between hosts; the outside still reaches a host that is set apart, so that a
//! test can look at it. A cable that is cut is cut for everybody.
//!
//! Lost packets are random. A delay there is not: it takes the kernel's netem, which test machines do not have, so a slow
//! link is one that lets little through, which delays what is sent in bulk.
//!
//! It must not know what the hosts are for.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};

use super::host::port;
use super::keeper::SHORT;
use super::{Error, Host, Hosts, process};

/// The file that fills a volume.
const FILLER: &str = ".filled-by-the-lab";
/// It is filled in steps of these sizes, the larger first.
const STEPS: [usize; 3] = [1 << 20, 4096, 1];

/// The rules that a network begins with: pairs of ports that nothing goes between, and a chain a host for what is lost.
pub(super) fn rules(count: usize) -> String {
    let mut rules = String::from("table bridge lab {\n  set apart { type ifname . ifname; }\n");
    let mut jumps = String::new();
    for port in (1..=count).map(port) {
        // Writing to a string does not fail.
        writeln!(rules, "  chain {port} {{ }}").ok();
        writeln!(jumps, "    iifname \"{port}\" jump {port}\n    oifname \"{port}\" jump {port}").ok();
    }
    rules
        + "  chain forward {\n    type filter hook forward priority 0\n    iifname . oifname @apart drop\n"
        + &jumps
        + "  }\n}\n"
}

impl Host {
    /// Pulls the host's cable. One that is switched on has it plugged in.
    ///
    /// # Errors
    /// When the host is off.
    pub fn cut(&self) -> Result<(), Error> {
        self.link("down")
    }

    /// Plugs the cable in again.
    ///
    /// # Errors
    /// When the host is off.
    pub fn uncut(&self) -> Result<(), Error> {
        self.link("up")
    }

    fn link(&self, state: &str) -> Result<(), Error> {
        self.world.keeper.run("ip", &["link", "set", &self.port(), state]).map(drop)
    }

    /// Stops all processes of the host where they are. The kernel still takes what is sent to their sockets.
    ///
    /// # Errors
    /// When the host is off, or a process does not stop.
    pub fn freeze(&self) -> Result<(), Error> {
        self.world.groups.freeze(self.name(), true)
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// When the host is off.
    pub fn thaw(&self) -> Result<(), Error> {
        self.world.groups.freeze(self.name(), false)
    }

    /// Lets no more than so many kilobits a second through the host's cable, each way. It holds until [`Host::speed_up`], or until
    /// the host is off.
    ///
    /// # Errors
    /// When the host is off.
    pub fn slow_down(&self, kilobits: u32) -> Result<(), Error> {
        let rate = format!("{kilobits}kbit");
        let queue = ["root", "tbf", "rate", &rate, "burst", "4k", "latency", "1s"];
        self.queue("replace", &queue)
    }

    /// Takes the limit away.
    ///
    /// # Errors
    /// When there is none.
    pub fn speed_up(&self) -> Result<(), Error> {
        self.queue("delete", &["root"])
    }

    fn queue(&self, action: &str, queue: &[&str]) -> Result<(), Error> {
        let (to, from) = (self.world.keeper.beside("tc"), self.beside("tc")?);
        for (mut command, device) in [(to, self.port()), (from, "host0".to_owned())] {
            command.args(["qdisc", action, "dev", &device]).args(queue);
            process::run(command, SHORT)?;
        }
        Ok(())
    }

    /// Loses so many of a hundred packets between this host and others, each way. With 0 no more are lost.
    ///
    /// # Errors
    /// When the kernel does not take the rule.
    pub fn lose(&self, percent: u8) -> Result<(), Error> {
        let port = self.port();
        let mut rules = format!("flush chain bridge lab {port}\n");
        match percent {
            0 => {}
            // The kernel takes no comparison that always holds.
            100.. => rules.push_str(&format!("add rule bridge lab {port} drop\n")),
            _ => rules
                .push_str(&format!("add rule bridge lab {port} numgen random mod 100 < {percent} drop\n")),
        }
        self.world.rule(&rules)
    }

    /// Fills the volume that this folder lies on, to the last byte.
    ///
    /// # Errors
    /// When it cannot be written to for another reason than that it is full.
    pub fn fill(&self, folder: &str) -> Result<(), Error> {
        let path = self.path(folder).join(FILLER);
        let mut file =
            File::options().create(true).append(true).open(&path).map_err(Error::io("make", &path))?;
        for step in STEPS {
            let bytes = vec![0; step];
            loop {
                match file.write(&bytes) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                    Err(error) => return Err(Error::io("write", &path)(error)),
                }
            }
        }
        Ok(())
    }

    /// Makes room again.
    ///
    /// # Errors
    /// When it was not full.
    pub fn unfill(&self, folder: &str) -> Result<(), Error> {
        let path = self.path(folder).join(FILLER);
        std::fs::remove_file(&path).map_err(Error::io("remove", &path))
    }
}

impl super::World {
    fn rule(&self, rules: &str) -> Result<(), Error> {
        self.keeper.run("nft", &[rules]).map(drop)
    }
}

impl Hosts {
    /// Nothing that the first hosts send reaches the others. What the others send does.
    ///
    /// # Errors
    /// When the kernel does not take the rule.
    pub fn deafen(&self, from: &[&Host], to: &[&Host]) -> Result<(), Error> {
        let pairs =
            from.iter().flat_map(|from| to.iter().map(|to| format!("{} . {}", from.port(), to.port())));
        let pairs: Vec<_> = pairs.collect();
        self.world.rule(&format!("add element bridge lab apart {{ {} }}", pairs.join(", ")))
    }

    /// Nothing goes between the hosts of the one side and those of the other, either way.
    ///
    /// # Errors
    /// When the kernel does not take the rule.
    pub fn partition(&self, one: &[&Host], other: &[&Host]) -> Result<(), Error> {
        self.deafen(one, other)?;
        self.deafen(other, one)
    }

    /// Takes back all of [`Hosts::deafen`] and [`Hosts::partition`].
    ///
    /// # Errors
    /// When the kernel does not take the rule.
    pub fn heal(&self) -> Result<(), Error> {
        self.world.rule("flush set bridge lab apart")
    }
}
