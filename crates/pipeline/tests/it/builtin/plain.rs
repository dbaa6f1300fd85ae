//! Steps that want nothing but a shell: in boxes with busybox, with bash, and with dash.

use crate::host::{BASH, SH, engine};

use super::{DEBIAN, SHELLS, code, debian, job, stand_in};

/// The plain boxes and their shells.
const PLAIN: [(&str, &str); 2] = [(SH, "/bin/sh"), (BASH, "/bin/bash")];

#[tokio::test]
async fn create_file() {
    let Some(engine) = engine().await else { return };
    for (image, shell) in PLAIN {
        let steps = "- create-file:\n    filename: a/b/robots.txt\n    content: |-\n      # \"All\" but `drafts` for $WHO\n\n        it's \\a\\\n      %s 漢\n- create-file:\n    filename: secret\n    content: $WHO\n    hide-from-log: true\n- create-file:\n    filename: secret\n    content: new\n    overwrite: true\n- create-file:\n    filename: secret\n";
        let mut job = job(image, shell, steps);
        job.spec.env = vec![("WHO".into(), "me".into())];
        let ran = job.run(&engine).await;
        let text = "# \"All\" but `drafts` for me\n\n  it's \\a\\\n%s 漢\n";
        assert_eq!(ran.output(0), format!("create-file: wrote a/b/robots.txt\n{text}"), "{image}");
        assert_eq!(ran.output(1), "create-file: wrote secret\n", "{image}");
        assert_eq!(ran.refusal(3), "create-file: secret is there already; \"overwrite: true\" replaces it");
        let source = ran.dir.path().join("work/pipeline/source");
        assert_eq!(std::fs::read_to_string(source.join("a/b/robots.txt")).unwrap(), text, "{image}");
        assert_eq!(std::fs::read_to_string(source.join("secret")).unwrap(), "new\n", "{image}");
    }
}

#[tokio::test]
async fn bash_template() {
    let Some(engine) = engine().await else { return };
    for (image, shell) in PLAIN {
        let steps = format!(
            "- bash-template\n- bash-template:\n    input: one.in\n    output: one.out\n{}- bash-template:\n    input: one.in\n    output: two.out\n    error-on-empty: true\n",
            code("show", "cat deep/app.yml one.out; ./deep/tool")
        );
        let mut job = job(image, shell, &steps);
        job.spec.env = vec![("TAG".into(), "v1 \"q\" $HOME".into())];
        let project = job.dir.path().join("project");
        std::fs::create_dir(project.join("deep")).unwrap();
        let text = "image: ${TAG}\nprice: \\$5 'q' \"q\"\nlist: $(echo a b)\nnone: [$NONE_SUCH]\n";
        std::fs::write(project.join("deep/app.yml.template"), text).unwrap();
        let tool = project.join("deep/tool.template");
        std::fs::write(&tool, "#!/bin/sh\necho tool\n").unwrap();
        std::fs::set_permissions(&tool, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::write(project.join("one.in"), "$TAG $NONE_SUCH.\n").unwrap();
        let ran = job.run(&engine).await;
        let filled = "image: v1 \"q\" $HOME\nprice: $5 'q' \"q\"\nlist: a b\nnone: []\n";
        assert_eq!(ran.output(2), format!("{filled}v1 \"q\" $HOME .\ntool\n"), "{image}: {:#?}", ran.events);
        assert_eq!(ran.finished(3).0, sealift_model::StepOutcome::Failed, "{image}");
        assert!(!ran.dir.path().join("work/pipeline/source/two.out").is_file());
    }
}

#[tokio::test]
async fn rails_database_yml() {
    let Some(engine) = debian().await else { return };
    let cases = [
        (
            "",
            vec![
                ("POSTGRES_PORT_5432_TCP_ADDR", "10.0.0.2"),
                ("POSTGRES_ENV_POSTGRES_PASSWORD", "it's: \"x\" #"),
            ],
            r#"{"adapter"=>"postgresql", "host"=>"10.0.0.2", "port"=>5432, "database"=>"postgres", "username"=>"postgres", "password"=>"it's: \"x\" #", "encoding"=>"utf8", "min_messages"=>"warning"}"#,
        ),
        (
            ":\n    service: postgresql-docker\n    postgresql-min-message: error",
            vec![
                ("MYSQL_PORT_3306_TCP_ADDR", "10.0.0.3"),
                ("DB_PORT_5432_TCP_ADDR", "10.0.0.4"),
                ("DB_ENV_POSTGRES_USER", "app"),
            ],
            r#"{"adapter"=>"postgresql", "host"=>"10.0.0.4", "port"=>5432, "database"=>"app", "username"=>"app", "password"=>"", "encoding"=>"utf8", "min_messages"=>"error"}"#,
        ),
        (
            "",
            vec![("MARIADB_PORT_3306_TCP_ADDR", "10.0.0.3"), ("MARIADB_ENV_MYSQL_ROOT_PASSWORD", "r")],
            r#"{"adapter"=>"mysql2", "host"=>"10.0.0.3", "port"=>3306, "database"=>"test", "username"=>"root", "password"=>"r", "encoding"=>"utf8"}"#,
        ),
    ];
    for shell in SHELLS {
        for (properties, env, want) in &cases {
            let read = "ruby -ryaml -e 'p YAML.load_file(\"config/database.yml\")[\"test\"]'";
            let steps = format!("- rails-database-yml{properties}\n{}", code("read", read));
            let mut job = job(DEBIAN, shell, &steps);
            job.spec.env =
                env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let ran = job.run(&engine).await;
            assert_eq!(ran.output(1), format!("{want}\n"), "{shell}: {:#?}", ran.events);
        }
        let ran = job(DEBIAN, shell, "- rails-database-yml\n").run(&engine).await;
        assert_eq!(ran.refusal(0), "rails-database-yml: the run has no service with PostgreSQL or MySQL");
    }
}

#[tokio::test]
async fn hipchat_notify_goes_on() {
    let Some(engine) = engine().await else { return };
    let ran = job(SH, "/bin/sh", "- hipchat-notify:\n    token: a\n    room-id: b\n").run(&engine).await;
    assert!(ran.all_passed().output(0).starts_with("warning: hipchat-notify: HipChat was shut down"));
    assert!(ran.warnings().is_empty(), "{:?}", ran.warnings());
}

#[tokio::test]
async fn install_packages_with_stand_ins_for_apk_dnf_yum_and_zypper() {
    let Some(engine) = engine().await else { return };
    let cache = "/pipeline/cache/install-packages";
    for (image, shell) in PLAIN {
        for (tool, want) in [
            ("apk", format!("apk <--cache-dir> <{cache}/apk> <--update-cache> <add> <git> <sub*> <vim=1>")),
            (
                "dnf",
                format!(
                    "dnf <-y> <--setopt=cachedir={cache}/dnf> <--setopt=keepcache=1> <install> <git> <sub*> <vim=1>"
                ),
            ),
            (
                "yum",
                format!(
                    "yum <-y> <--setopt=cachedir={cache}/yum> <--setopt=keepcache=1> <install> <git> <sub*> <vim=1>"
                ),
            ),
            ("zypper", "zypper <--non-interactive> <install> <git> <sub*> <vim=1>".to_owned()),
        ] {
            let steps = format!(
                "{}- install-packages:\n    packages: |\n      git sub*\n      vim=1\n{}{}- install-packages:\n    packages: none\n",
                code("lay", &format!("{}export PATH=/tmp/bin:$PATH\ntouch sub1", stand_in(tool, ""))),
                code("show", "cat /tmp/calls"),
                code("break", &stand_in(tool, "exit 7")),
            );
            let ran = job(image, shell, &steps).run(&engine).await;
            assert_eq!(ran.output(2), format!("{want}\n"), "{image}: {:#?}", ran.events);
            let refusal = ran.refusal(4);
            assert!(refusal.starts_with(&format!("install-packages: {tool} cannot ")), "{refusal}");
        }
        let ran = job(image, shell, "- install-packages:\n    packages: git\n").run(&engine).await;
        assert_eq!(ran.refusal(0), "install-packages: the box has none of apt-get, apk, dnf, yum and zypper");
        let ran = job(image, shell, "- install-packages\n").run(&engine).await;
        assert_eq!(ran.refusal(0), "install-packages: name what to install in the property \"packages\"");
    }
}

#[tokio::test]
async fn nvm_and_rvm_use_with_stand_ins() {
    let Some(engine) = engine().await else { return };
    // Functions, as the real ones are; `use` knows what `install` has brought.
    let function = |name: &str, program: &str| {
        format!(
            "{name}() {{\n  echo \"{name} $*\" >>/tmp/calls\n  case $1 in install) touch \"/tmp/$2\" ;; use) [ -e \"/tmp/$2\" ] && eval '{program}() {{ echo '\"$2\"'; }}' ;; esac\n}}\n"
        )
    };
    for (image, shell) in PLAIN {
        let lay = format!("mkdir -p ~/.nvm\ncat >~/.nvm/nvm.sh <<'END'\n{}END", function("nvm", "node"));
        let steps = format!(
            "{}- nvm:\n    version: \"18\"\n{}- nvm\n- nvm:\n    version: \"99\"\n    install: false\n",
            code("lay", &format!("{lay}\necho 16 >.nvmrc")),
            code("show", "node; cat /tmp/calls")
        );
        let ran = job(image, shell, &steps).run(&engine).await;
        assert_eq!(
            ran.output(2),
            "18\nnvm use 18\nnvm install 18\nnvm use 18\n",
            "{image}: {:#?}",
            ran.events
        );
        assert!(ran.output(3).ends_with("16\n"), "{}", ran.output(3));
        assert_eq!(ran.refusal(4), "nvm: there is no Node.js 99 here; \"install: true\" fetches it");

        let lay = format!(
            "mkdir -p ~/.rvm/scripts\ncat >~/.rvm/scripts/rvm <<'END'\n{}END",
            function("rvm", "ruby")
        );
        let steps = format!(
            "{}- rvm-use:\n    version: \"2.1\"\n    create: true\n{}- rvm-use:\n    version: \"1.9\"\n",
            code("lay", &lay),
            code("show", "ruby; cat /tmp/calls")
        );
        let ran = job(image, shell, &steps).run(&engine).await;
        if image == SH {
            assert_eq!(ran.refusal(1), "rvm-use: RVM needs bash, and the box has none");
        } else {
            assert_eq!(
                ran.output(2),
                "2.1\nrvm use 2.1\nrvm install 2.1\nrvm use 2.1\n",
                "{:#?}",
                ran.events
            );
            assert_eq!(ran.refusal(3), "rvm-use: rvm has no 1.9; \"create: true\" installs it");
        }
    }
}
