//! Where values come from, and what is refused.

use super::*;

fn load(environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    Config::load(
        None,
        environment.iter().map(own),
        &flags.iter().map(own).collect::<Vec<_>>(),
    )
}

#[test]
fn the_defaults_alone_are_a_valid_configuration() {
    let config = load(&[], &[]).expect("the defaults hold");

    assert_eq!(config.server.listen.port(), 8080);
    assert_eq!(
        config.database_url(),
        DatabaseUrl::Sqlite("data/frontdesk.db".into())
    );
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_default() {
    let environment = [
        ("FRONTDESK_SERVER__LISTEN", "0.0.0.0:1000"),
        ("FRONTDESK_JOBS__WORKERS", "7"),
    ];

    let config = load(&environment, &[("server.listen", "127.0.0.1:0")]).expect("the values hold");

    assert_eq!(config.server.listen.to_string(), "127.0.0.1:0");
    assert_eq!(config.jobs.workers, 7);
}

#[test]
fn all_problems_are_reported_together_by_path() {
    let environment = [
        ("FRONTDESK_SERVER__COLOUR", "red"),
        ("FRONTDESK_JOBS__WORKERS", "many"),
    ];

    let ConfigError(problems) =
        load(&environment, &[("llm.nope", "1")]).expect_err("three settings are wrong");

    assert_eq!(problems.len(), 3, "{problems:?}");
    assert!(problems[0].contains("FRONTDESK_SERVER__COLOUR"));
    assert!(problems[1].contains("whole number"));
    assert!(problems[2].contains("llm.nope"));
}

#[test]
fn values_that_contradict_each_other_are_reported_together() {
    let flags = [
        ("llm.base_url", "http://127.0.0.1:1/v1"),
        ("embedding.backend", "openai"),
        ("database.url", "mysql://x"),
    ];

    let ConfigError(problems) =
        load(&[], &flags).expect_err("a model, an endpoint and a database are missing");

    for path in [
        "llm.model",
        "embedding.base_url",
        "embedding.model",
        "embedding.dimension",
        "database.url",
    ] {
        assert!(
            problems.iter().any(|problem| problem.starts_with(path)),
            "{path} is missing in {problems:?}"
        );
    }
}

#[test]
fn one_bad_value_does_not_hide_another() {
    let flags = [
        ("server.listen", "everywhere"),
        ("server.trusted_proxies", "me"),
        ("index.backend", "sled"),
        ("jobs.workers", "many"),
        ("nope.x", "1"),
    ];

    let ConfigError(problems) = load(&[], &flags).expect_err("five settings are wrong");

    for path in [
        "server.listen",
        "server.trusted_proxies",
        "index.backend",
        "jobs.workers",
        "nope.x",
    ] {
        assert!(
            problems.iter().any(|problem| problem.contains(path)),
            "{path} is missing in {problems:?}"
        );
    }
    let ConfigError(problems) =
        load(&[], &[("nope.x", "1"), ("jobs.workers", "0")]).expect_err("two settings are wrong");
    assert_eq!(problems.len(), 2, "{problems:?}");
}

#[test]
fn the_environment_cannot_open_private_addresses() {
    let ConfigError(problems) =
        load(&[("FRONTDESK_OUTBOUND__ALLOW", "127.0.0.1:80")], &[]).expect_err("refused");

    assert!(problems[0].contains("file or by flag only"));
    assert_eq!(
        load(&[], &[("outbound.allow", "127.0.0.1:80")])
            .expect("a flag may")
            .outbound
            .allow,
        ["127.0.0.1:80"]
    );
}

#[test]
fn a_secret_does_not_show_in_debug_output() {
    let config = load(&[], &[("llm.api_key", "sk-very-secret")]).expect("a key may be set");

    assert!(!format!("{config:?}").contains("very-secret"));
}

#[test]
fn a_file_that_cannot_be_read_is_told_by_its_line_without_showing_it() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), "data_dir = 'x'\n[llm]\napi_key = \"sk-very-secret\n").expect("written");

    let ConfigError(problems) = Config::load(Some(file.path()), [], &[]).expect_err("a quote is missing");

    assert!(problems[0].contains("line 3"), "{problems:?}");
    assert!(!problems[0].contains("very-secret"), "{problems:?}");
}
