//! Steps that call a tool of the box: the real one, in Debian, by dash and by bash.

use super::{DEBIAN, SHELLS, code, debian, job, stand_in};

#[tokio::test]
async fn install_packages_by_apt() {
    let Some(engine) = debian().await else { return };
    // An archive of packages of its own: no network is needed.
    let archive = r#"
mkdir -p /tmp/greet/DEBIAN /tmp/greet/usr/bin /tmp/archive
printf 'Package: greet\nVersion: 1.0\nArchitecture: all\nMaintainer: me <me@localhost>\nDescription: greets\n' >/tmp/greet/DEBIAN/control
printf '#!/bin/sh\necho greetings\n' >/tmp/greet/usr/bin/greet
chmod +x /tmp/greet/usr/bin/greet
dpkg-deb --build /tmp/greet /tmp/archive/greet.deb >/dev/null
cd /tmp/archive
{ dpkg-deb --field greet.deb; printf 'Filename: ./greet.deb\nSize: %s\nSHA256: %s\n' "$(stat -c %s greet.deb)" "$(sha256sum greet.deb | cut -d ' ' -f 1)"; } >Packages
rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*
echo 'deb [trusted=yes] copy:/tmp/archive ./' >/etc/apt/sources.list
"#;
    for shell in SHELLS {
        let steps = format!(
            "{}- install-packages:\n    packages: greet=1.0\n    clear-apt-cache: true\n{}- install-packages:\n    packages: never-heard-of\n",
            code("archive", archive),
            code("show", "greet; ls $WERCKER_CACHE_DIR/install-packages/apt/*.deb")
        );
        let ran = job(DEBIAN, shell, &steps).run(&engine).await;
        let kept = "/pipeline/cache/install-packages/apt/greet_1.0_all.deb";
        assert_eq!(ran.output(2), format!("greetings\n{kept}\n"), "{shell}: {:#?}", ran.events);
        assert_eq!(ran.refusal(3), "install-packages: apt-get cannot install never-heard-of");
    }
}

#[tokio::test]
async fn npm_install_and_npm_test() {
    let Some(engine) = debian().await else { return };
    for shell in SHELLS {
        let steps = "- npm-install:\n    options: --offline --no-audit --no-fund\n- npm-test:\n    options: --silent\n- npm-install:\n    options: --offline\n    packages: ./never-heard-of\n";
        let job = job(DEBIAN, shell, steps);
        let project = job.dir.path().join("project");
        std::fs::create_dir(project.join("greet")).unwrap();
        for (file, text) in [
            (
                "package.json",
                r#"{"name": "it", "dependencies": {"greet": "file:greet"}, "scripts": {"test": "node -e \"console.log(require('greet'))\""}}"#,
            ),
            ("greet/package.json", r#"{"name": "greet", "version": "1.0.0", "main": "main.js"}"#),
            ("greet/main.js", "module.exports = 'greetings'\n"),
        ] {
            std::fs::write(project.join(file), text).unwrap();
        }
        let ran = job.run(&engine).await;
        assert_eq!(ran.output(1), "greetings\n", "{shell}: {:#?}", ran.events);
        assert!(
            ran.refusal(2).starts_with("npm-install: npm install failed three times"),
            "{}",
            ran.output(2)
        );
        assert_eq!(ran.output(2).matches("trying again").count(), 2);
        assert!(ran.dir.path().join("work/pipeline/cache/npm").is_dir());
    }
}

#[tokio::test]
async fn bundle_install() {
    let Some(engine) = debian().await else { return };
    for shell in SHELLS {
        let steps = format!(
            "- bundle-install:\n    local: true\n    without: development, production\n    jobs: 2\n{}- bundle-install:\n    local: true\n    frozen: true\n    gemfile: Other\n- bundle-install:\n    gemfile: None\n",
            code(
                "use",
                "bundle exec ruby -e 'require \"greet\"; puts GREET'; bundle config get without | tail -n 1; echo $BUNDLE_PATH"
            )
        );
        let job = job(DEBIAN, shell, &steps);
        let project = job.dir.path().join("project");
        std::fs::create_dir_all(project.join("greet/lib")).unwrap();
        for (file, text) in [
            (
                "Gemfile",
                "gem 'greet', path: 'greet'\ngroup(:development) { gem 'never-heard-of', path: 'greet2' }\n",
            ),
            ("Other", "gem 'greet', path: 'greet'\n"),
            (
                "greet/greet.gemspec",
                "Gem::Specification.new { |s| s.name = 'greet'; s.version = '1'; s.summary = 's'; s.authors = ['me']; s.files = ['lib/greet.rb'] }\n",
            ),
            ("greet/lib/greet.rb", "GREET = 'greetings'\n"),
        ] {
            std::fs::write(project.join(file), text).unwrap();
        }
        std::fs::create_dir_all(project.join("greet2")).unwrap();
        let spec = "Gem::Specification.new { |s| s.name = 'never-heard-of'; s.version = '1'; s.summary = 's'; s.authors = ['me'] }\n";
        std::fs::write(project.join("greet2/never-heard-of.gemspec"), spec).unwrap();
        let ran = job.run(&engine).await;
        let said = ran.output(1);
        assert!(
            said.starts_with("greetings\n") && said.ends_with("/pipeline/cache/bundle-install\n"),
            "{shell}: {said}{}",
            ran.output(0)
        );
        assert!(said.contains(":development, :production"), "{said}");
        assert!(
            ran.refusal(2).starts_with("bundle-install: bundle install ended with code "),
            "{}",
            ran.output(2)
        );
    }
}

#[tokio::test]
async fn virtualenv_and_pip_install() {
    let Some(engine) = debian().await else { return };
    // A package that needs no network and no building.
    let wheel = r#"python3 - <<'END'
import zipfile
with zipfile.ZipFile("greet-1.0-py3-none-any.whl", "w") as wheel:
    wheel.writestr("greet.py", "GREET = 'greetings'\n")
    wheel.writestr("greet-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: greet\nVersion: 1.0\n")
    wheel.writestr("greet-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: me\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr("greet-1.0.dist-info/RECORD", "")
END
echo ./greet-1.0-py3-none-any.whl >requirements.txt"#;
    for shell in SHELLS {
        let steps = format!(
            "{}- virtualenv:\n    virtualenv_location: /tmp/env\n- pip-install:\n    extra_args: --no-index\n{}- pip-install:\n    packages_list: never-heard-of\n    extra_args: --no-index\n",
            code("wheel", wheel),
            code("use", "command -v python; python -c 'import greet; print(greet.GREET)'")
        );
        let ran = job(DEBIAN, shell, &steps).run(&engine).await;
        assert_eq!(ran.output(3), "/tmp/env/bin/python\ngreetings\n", "{shell}: {:#?}", ran.events);
        assert_eq!(ran.refusal(4), "pip-install: pip install ended with code 1");
        let ran = job(DEBIAN, shell, &format!("{}- pip-install\n", code("wheel", wheel))).run(&engine).await;
        assert!(ran.refusal(1).contains("a step \"virtualenv\" before this one"), "{}", ran.refusal(1));
        let ran = job(DEBIAN, shell, "- pip-install\n").run(&engine).await;
        assert_eq!(ran.refusal(0), "pip-install: there is no requirements.txt in /pipeline/source");
    }
}

#[tokio::test]
async fn setup_go_workspace() {
    let Some(engine) = debian().await else { return };
    for shell in SHELLS {
        for (property, place) in
            [("", "example.com/me/hello"), (":\n    package-dir: other.org/x", "other.org/x")]
        {
            let steps = format!(
                "- setup-go-workspace{property}\n{}",
                code("build", "pwd; go install . ./lib; command -v ${PWD##*/} && ${PWD##*/}; go list ./...")
            );
            let mut job = job(DEBIAN, shell, &steps);
            job.spec.git.domain = "example.com".into();
            job.spec.git.owner = "me".into();
            job.spec.git.repository = "hello".into();
            let project = job.dir.path().join("project");
            std::fs::create_dir(project.join("lib")).unwrap();
            let main =
                format!("package main\n\nimport \"{place}/lib\"\n\nfunc main() {{ println(lib.Greet) }}\n");
            std::fs::write(project.join("main.go"), main).unwrap();
            std::fs::write(project.join("lib/lib.go"), "package lib\n\nconst Greet = \"greetings\"\n")
                .unwrap();
            let ran = job.run(&engine).await;
            let name = place.rsplit('/').next().unwrap();
            let mut said: Vec<String> = ran.all_passed().output(1).lines().map(str::to_owned).collect();
            said.sort();
            let mut want = vec![
                format!("/pipeline/go/src/{place}"),
                format!("/pipeline/go/bin/{name}"),
                "greetings".to_owned(),
                place.to_owned(),
                format!("{place}/lib"),
            ];
            want.sort();
            assert_eq!(said, want, "{shell}");
        }
        let steps = "- setup-go-workspace:\n    package-dir: ../../etc\n";
        let ran = job(DEBIAN, shell, steps).run(&engine).await;
        assert_eq!(ran.refusal(0), "setup-go-workspace: ../../etc is no package");
    }
}

#[tokio::test]
async fn add_ssh_key_and_add_to_known_hosts_with_a_real_server() {
    let Some(engine) = debian().await else { return };
    let serve = r#"
ssh-keygen -q -t ed25519 -N '' -f /tmp/host
ssh-keygen -q -t ecdsa -N '' -f /tmp/host2
ssh-keygen -q -t rsa -b 2048 -N '' -f /tmp/mine
mkdir -p /run/sshd ~/.ssh && chmod 700 ~/.ssh && cp /tmp/mine.pub ~/.ssh/authorized_keys
# Started by hand and not as a service: it is there when it is back.
/usr/sbin/sshd -p 2222 -h /tmp/host -h /tmp/host2 -o PidFile=none -o StrictModes=no
SHA=$(ssh-keygen -lf /tmp/host.pub | cut -d ' ' -f 2)
MD5=$(ssh-keygen -E md5 -lf /tmp/host.pub | cut -d ' ' -f 2)
export SHA MD5=${MD5#MD5:} PLAIN_PRIVATE="$(cat /tmp/mine)"
export JOINED_PRIVATE="$(awk '{ printf "%s\\n", $0 }' /tmp/mine)" BAD_PRIVATE='-----BEGIN PRIVATE KEY-----' NONE_PRIVATE=x
"#;
    let login = "rm -f /tmp/mine; ssh -p 2222 -o BatchMode=yes localhost echo in; stat -c %a ~/.ssh/$KEY; wc -l </etc/ssh/ssh_known_hosts";
    for shell in SHELLS {
        for key in ["PLAIN", "JOINED"] {
            let steps = format!(
                "{}- add-to-known_hosts:\n    hostname: localhost\n    port: 2222\n    fingerprint: {}\n- add-ssh-key:\n    keyname: {key}\n    host: localhost\n{}",
                code("serve", serve),
                if key == "PLAIN" { "$SHA" } else { "$MD5" },
                code("log in", &format!("KEY={key}\n{login}")),
            );
            let ran = job(DEBIAN, shell, &steps).run(&engine).await;
            // One of the host's two keys, the one whose fingerprint was given.
            assert_eq!(ran.all_passed().output(3), "in\n600\n1\n", "{shell}");
        }
        for (step, want) in [
            (
                "add-ssh-key:\n    keyname: BAD",
                "add-ssh-key: ssh-keygen does not take what is in BAD_PRIVATE: is it whole, and without a passphrase?",
            ),
            ("add-ssh-key:\n    keyname: NONE", "add-ssh-key: what is in NONE_PRIVATE is no private key"),
            (
                "add-ssh-key:\n    keyname: MISSING",
                "add-ssh-key: the variable MISSING_PRIVATE is not set, or is empty",
            ),
            (
                "add-ssh-key:\n    keyname: a;b",
                "add-ssh-key: \"a;b\" is no name of a variable: give the key's name, not the key",
            ),
            (
                "add-to-known_hosts:\n    hostname: localhost\n    port: 2222\n    fingerprint: SHA256:other",
                "add-to-known_hosts: no key of localhost has the fingerprint SHA256:other",
            ),
            (
                "add-to-known_hosts:\n    hostname: localhost\n    port: 1",
                "add-to-known_hosts: localhost tells no key of type rsa,ecdsa,ed25519",
            ),
        ] {
            let ran = job(DEBIAN, shell, &format!("{}- {step}\n", code("serve", serve))).run(&engine).await;
            assert_eq!(ran.refusal(1), want, "{shell}");
        }
    }
}

#[tokio::test]
async fn shellcheck() {
    let Some(engine) = debian().await else { return };
    for shell in SHELLS {
        let steps = "- shellcheck\n- shellcheck:\n    files: good.sh|with blank.sh\n    separator: \"|\"\n- shellcheck:\n    files: bad.txt\n    exclude: SC2086\n    shell: sh\n- shellcheck:\n    files: good.sh bad.txt\n    format: gcc\n    shell: sh\n";
        let job = job(DEBIAN, shell, steps);
        let project = job.dir.path().join("project");
        for (file, text) in [
            ("good.sh", "#!/bin/sh\necho \"$1\"\n"),
            ("with blank.sh", "#!/bin/sh\necho\n"),
            ("bad.txt", "echo $1\n"),
        ] {
            std::fs::write(project.join(file), text).unwrap();
        }
        let ran = job.run(&engine).await;
        assert_eq!(ran.refusal(3), "shellcheck: there are findings (code 1)", "{:#?}", ran.events);
        assert!(ran.output(3).starts_with("bad.txt:1:6: note: "), "{}", ran.output(3));
        let ran = super::job(DEBIAN, shell, "- shellcheck:\n    files: none.sh\n").run(&engine).await;
        assert_eq!(ran.refusal(0), "shellcheck: there is no none.sh in /pipeline/source");
    }
}

#[tokio::test]
async fn golint_with_a_stand_in() {
    let Some(engine) = debian().await else { return };
    let findings = |count: usize| {
        stand_in("golint", &format!("seq -f 'x.go:%g: finding' {count}; echo y.pb.go:1: other"))
    };
    for shell in SHELLS {
        for (count, want) in [
            (3, Ok(Some("golint: 3 findings"))),
            (6, Ok(Some("golint: 6 findings"))),
            (0, Ok(None)),
            (10, Err("golint: 10 findings")),
        ] {
            let steps = format!(
                "{}- golint:\n    exclude: \\.pb\\.go\n{}",
                code("lay", &format!("{}export PATH=/tmp/bin:$PATH", findings(count))),
                code("show", "cat /tmp/calls")
            );
            let ran = job(DEBIAN, shell, &steps).run(&engine).await;
            match want {
                Ok(message) => {
                    assert_eq!(ran.all_passed().finished(1).2.as_deref(), message);
                    assert_eq!(ran.output(2), "golint <./...>\n");
                    assert_eq!(ran.output(1).contains("warning: golint: 6 findings"), count == 6);
                }
                Err(message) => assert_eq!(ran.refusal(1), message),
            }
            let reports = ran.outcome().reports.clone().unwrap();
            let kept = std::fs::read_to_string(reports.join("1-golint/artifacts/lint_results.txt")).unwrap();
            assert_eq!(kept.lines().count(), count);
        }
    }
}

#[tokio::test]
async fn heroku_deploy_to_a_repository_here() {
    let Some(engine) = debian().await else { return };
    for shell in SHELLS {
        let steps = format!(
            "{}- heroku-deploy:\n    key: secret\n    app-name: hello\n    git-url: /tmp/app.git\n    install-toolbelt: true\n{}- heroku-deploy:\n    key: secret\n    app-name: hello\n    git-url: /tmp/none.git\n",
            code(
                "lay",
                "git init --quiet --bare /tmp/app.git; echo made >made; echo '*.log' >.gitignore; touch a.log"
            ),
            code(
                "show",
                "git --git-dir /tmp/app.git ls-tree -r --name-only master; git --git-dir /tmp/app.git log -1 --format=%s master; ls -A | grep -x .git || ls -A ~ | grep netrc || echo clean"
            )
        );
        let ran = job(DEBIAN, shell, &steps).run(&engine).await;
        assert_eq!(
            ran.output(2),
            ".gitignore\nhello.txt\nmade\nDeploy abc\nclean\n",
            "{shell}: {:#?}",
            ran.events
        );
        assert!(ran.refusal(3).starts_with("heroku-deploy: git push ended with code "));
    }
}
