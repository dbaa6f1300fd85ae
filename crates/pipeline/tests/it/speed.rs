//! What a run and a step cost, measured beside bare container commands; `cargo test --test it speed -- --ignored
//! --nocapture` prints it.

use std::process::Command;
use std::time::{Duration, Instant};

use sealift_model::EventKind;

use crate::host::{Job, SH, engine, scripts};

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[tokio::test]
#[ignore = "a measurement"]
async fn ten_steps_beside_one_and_beside_bare_commands() {
    let Some(engine) = engine().await else { return };
    let (mut one, mut ten, mut bare, mut first) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..7 {
        for (count, times) in [(1, &mut one), (10, &mut ten)] {
            let started = Instant::now();
            let mut first_step = None;
            let job = Job::new(scripts(SH, &vec!["echo hi"; count]));
            let ran = job
                .run_watching(&engine, |event, _| {
                    if matches!(event, EventKind::Output { .. }) {
                        first_step.get_or_insert(started.elapsed());
                    }
                })
                .await;
            assert!(ran.outcome().passed);
            times.push(ran.took);
            first.extend(first_step);
        }
        let script = ["echo hi"; 10].join(";");
        let started = Instant::now();
        let mut command = Command::new("podman");
        command.args(["--runtime", "runc", "run", "--rm", "--ulimit", "nofile=20000:20000"]);
        command.args(["--ulimit", "nproc=32768:32768", SH, "sh", "-c", &script]);
        assert!(command.output().unwrap().status.success());
        bare.push(started.elapsed());
    }
    println!("one step {:?}, ten steps {:?}", median(one), median(ten));
    println!("to the first line of output {:?}, podman run of ten echos {:?}", median(first), median(bare));
}
