//! A password is never shown: not in help, not in an error, not in JSON, however wrong the input.

use crate::support::tool::Tool;

const SECRET: &str = "hunter2";

#[track_caller]
fn check(tool: Tool, what: &str) {
    let output = tool.run();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(!stdout.contains(SECRET), "{what}: {stdout}");
    let stderr = &output.stderr;
    assert!(!stderr.contains(SECRET), "{what}: {stderr}");
    assert_ne!(output.code(), Some(101), "{what}: {stderr}");
}

#[test]
fn urls_are_never_quoted() {
    for url in [
        "redis://u:hunter2@127.0.0.1:1",
        "redis://hunter2@127.0.0.1:1",
        "redis://:hunter2@127.0.0.1:1/x",
        "redis://:hunter2#@127.0.0.1:1",
        "redis://u:hunter2/@127.0.0.1:1",
        "redis://u:1/hunter2@127.0.0.1:1",
        "redis://u:hunter2@127.0.0.1:port",
        "redis://u:hunter2@127.0.0.1:1?hunter2=1",
        "rediss://u:hunter2@127.0.0.1:1",
        "redis-sentinel://u:hunter2@127.0.0.1:1",
        "redis-sentinel://u:hunter2@127.0.0.1:1,127.0.0.1:2/mymaster",
        "redis-sentinel://u:1/hunter2@127.0.0.1:1/mymaster",
        "redis-sentinel://u:hunter2@127.0.0.1:1/mymaster#hunter2",
        "http://u:hunter2@127.0.0.1:1",
        "unix:///no/such/socket?pass=hunter2",
        "u:hunter2@127.0.0.1:6379",
    ] {
        for flags in [&[][..], &["-v"], &["--json"], &["--frobnicate"]] {
            let mut arguments = vec!["export", url];
            arguments.extend(flags);
            check(Tool::new(&arguments), url);
            let mut arguments = vec!["copy", url, url];
            arguments.extend(flags);
            check(Tool::new(&arguments), url);
            let mut arguments = vec!["import", url, "/dev/null"];
            arguments.extend(flags);
            check(Tool::new(&arguments), url);
        }
        check(Tool::new(&[url, url, url]), url);
        check(Tool::new(&["verify", url]), url);
        check(Tool::new(&["list", url, url]), url);
        for verb in ["export", "import", "copy"] {
            for argument in ["--help", "-v"] {
                let tool = Tool::new(&[verb, argument])
                    .env("SOURCE_REDIS_URL", url)
                    .env("DESTINATION_REDIS_URL", url);
                check(tool, url);
            }
        }
    }
}

#[test]
fn passwords_of_the_environment_are_never_shown() {
    let variables = [
        "SOURCE_REDIS_PASSWORD",
        "DESTINATION_REDIS_PASSWORD",
        "REDISCLI_AUTH",
    ];
    for variable in variables {
        for arguments in [
            &["export", "redis://127.0.0.1:1"][..],
            &["export", "--help"],
            &[
                "copy",
                "redis://127.0.0.1:1",
                "redis://127.0.0.1:1",
                "--json",
            ],
        ] {
            check(Tool::new(arguments).env(variable, SECRET), variable);
        }
    }
}
