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

/// The settings that a file of the project gives the service, with what it says for variables that nobody set.
fn settings_in(text: &str, is_between: char) -> Vec<(String, String)> {
    let pairs = text.lines().filter_map(|line| {
        let line = line
            .trim()
            .trim_start_matches("ENV ")
            .trim_end_matches('\\')
            .trim();
        let (name, value) = line.split_once(is_between)?;
        let is_setting =
            name.starts_with(ENVIRONMENT_PREFIX) && name.trim_end() == name && name.contains("__");
        is_setting.then(|| (name.to_owned(), value.trim().trim_matches('"')))
    });
    let settings = pairs.map(|(name, value)| match value.split_once("${") {
        None => (name, value.to_owned()),
        Some((before, variable)) => {
            let (variable, behind) = variable.split_once('}').expect("a variable ends");
            let unset = variable.split_once(":-").map_or("secret", |(_, unset)| unset);
            (name, format!("{before}{unset}{behind}"))
        }
    });
    settings.collect()
}

#[test]
fn what_the_images_set_is_a_valid_configuration_with_each_index() {
    let compose = settings_in(include_str!("../../compose.yaml"), ':');
    let image = settings_in(include_str!("../../Dockerfile"), '=');
    assert!(compose.len() >= 8 && image.len() >= 3, "{compose:?} {image:?}");
    let qdrant = [
        ("FRONTDESK_INDEX__URL", "http://qdrant:6334"),
        ("FRONTDESK_INDEX__API_KEY", "secret"),
    ];
    for (backend, others) in [("embedded", &[][..]), ("pgvector", &[]), ("qdrant", &qdrant)] {
        let mut environment = [image.clone(), compose.clone()].concat();
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        environment.push(own(&("FRONTDESK_INDEX__BACKEND", backend)));
        environment.extend(others.iter().map(own));

        Config::load(None, environment, &[]).unwrap_or_else(|error| panic!("{backend}: {error}"));
    }
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
fn a_list_is_given_with_commas_or_as_in_a_file() {
    for text in [
        "127.0.0.1,::1",
        " 127.0.0.1 , ::1 ",
        r#"["127.0.0.1", "::1"]"#,
        "['127.0.0.1', '::1',]",
    ] {
        let config = load(&[("FRONTDESK_SERVER__TRUSTED_PROXIES", text)], &[]).expect(text);

        let proxies = config.server.trusted_proxies.iter().map(ToString::to_string);
        assert_eq!(proxies.collect::<Vec<_>>(), ["127.0.0.1", "::1"], "{text}");
    }
    for text in ["", "[]"] {
        let config = load(&[], &[("outbound.allow", text)]).expect(text);

        assert!(config.outbound.allow.is_empty(), "{text}");
    }
    let config = load(&[], &[("outbound.allow", "[::1]:80,127.0.0.1:80")]).expect("an address with brackets");
    assert_eq!(config.outbound.allow, ["[::1]:80", "127.0.0.1:80"]);
    for text in [r#"["127.0.0.1"#, "[1]", "[]\nlisten = 1"] {
        let ConfigError(problems) = load(&[], &[("server.trusted_proxies", text)]).expect_err(text);

        assert!(problems[0].starts_with("server.trusted_proxies"), "{problems:?}");
    }
}

#[test]
fn a_database_in_memory_or_with_parameters_is_refused() {
    for url in [
        "sqlite::memory:",
        "sqlite://:memory:",
        "sqlite:desk.db?mode=memory",
        "sqlite:file:desk?mode=memory&cache=shared",
    ] {
        let ConfigError(problems) = load(&[], &[("database.url", url)]).expect_err(url);

        assert!(
            problems[0].starts_with("database.url: must be the path of a file"),
            "{problems:?}"
        );
    }
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
fn a_value_that_cannot_be_read_hides_no_contradiction() {
    let flags = [
        ("server.listen", "everywhere"),
        ("auth.jwt.leeway_s", "-1"),
        ("auth.jwt.issuer", "https://issuer.example.com"),
        ("llm.base_url", "http://127.0.0.1:1/v1"),
        ("llm.price_book", "/nonexistent/prices.toml"),
        ("embedding.backend", "openai"),
        ("embedding.dimension", "-1"),
    ];

    let ConfigError(problems) = load(&[], &flags).expect_err("much is wrong");

    for path in [
        "server.listen",
        "auth.jwt.leeway_s",
        "auth.jwt.audience",
        "llm.model",
        "llm.price_book",
        "embedding.model",
        "embedding.dimension",
    ] {
        let told = problems
            .iter()
            .filter(|problem| problem.starts_with(&format!("{path}:")))
            .count();
        assert_eq!(told, 1, "{path} in {problems:?}");
    }
}

#[test]
fn no_number_is_without_a_range() {
    fn list_numbers(table: &Table, prefix: &str, paths: &mut Vec<String>) {
        for (key, value) in table {
            match value {
                toml::Value::Table(section) => list_numbers(section, &format!("{prefix}{key}."), paths),
                toml::Value::Integer(_) => paths.push(format!("{prefix}{key}")),
                _ => {}
            }
        }
    }
    let mut paths = Vec::new();
    list_numbers(&DEFAULTS.parse().expect("TOML"), "", &mut paths);
    assert!(paths.len() > 30, "{paths:?}");

    for path in &paths {
        // The last is read by every type and still more than any of them should be.
        for value in ["-1", "9223372036854775807", "4294967295"] {
            let ConfigError(problems) = load(&[], &[(path, value)]).expect_err("out of range");
            assert!(
                problems
                    .iter()
                    .any(|problem| problem.starts_with(&format!("{path}:"))),
                "{path} = {value}: {problems:?}"
            );
        }
    }
}

#[test]
fn the_ends_of_a_range_belong_to_it() {
    for (path, inside, outside) in [
        ("jobs.workers", ["1", "256"], ["0", "257"]),
        ("auth.access_token_s", ["60", "86400"], ["59", "86401"]),
        ("server.shutdown_grace_s", ["0", "86400"], ["-1", "86401"]),
    ] {
        for value in inside {
            assert!(load(&[], &[(path, value)]).is_ok(), "{path} = {value}");
        }
        for value in outside {
            assert!(load(&[], &[(path, value)]).is_err(), "{path} = {value}");
        }
    }
}

#[test]
fn what_kubernetes_says_about_services_is_no_setting_and_a_typo_is_still_told() {
    let links = [
        ("FRONTDESK_PORT", "tcp://10.0.0.7:8080"),
        ("FRONTDESK_SERVICE_HOST", "10.0.0.7"),
        ("FRONTDESK_SERVICE_PORT", "8080"),
        ("FRONTDESK_SERVICE_PORT_HTTP", "8080"),
        ("FRONTDESK_PORT_8080_TCP", "tcp://10.0.0.7:8080"),
        ("FRONTDESK_PORT_8080_TCP_PROTO", "tcp"),
        ("FRONTDESK_PORT_8080_TCP_PORT", "8080"),
        ("FRONTDESK_PORT_8080_TCP_ADDR", "10.0.0.7"),
        ("FRONTDESK_POSTGRESQL_PORT", "tcp://10.0.0.8:5432"),
        ("FRONTDESK_POSTGRESQL_SERVICE_HOST", "10.0.0.8"),
    ];

    load(&links, &[]).expect("none of them is a setting");

    for typo in [
        "FRONTDESK_SERVER_PORT",
        "FRONTDESK_SERVER__PORT",
        "FRONTDESK_LISTEN",
    ] {
        let ConfigError(problems) = load(&[(typo, "80")], &[]).expect_err("there is no such setting");
        assert!(problems[0].contains(typo), "{problems:?}");
    }
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
    let flags = [
        ("llm.base_url", "http://127.0.0.1:1/v1"),
        ("llm.model", "m"),
        ("llm.api_key", "sk-very-secret"),
    ];

    let config = load(&[], &flags).expect("a key may be set");

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

#[test]
fn half_a_configuration_is_refused_by_what_it_lacks_or_does_not_take() {
    for (flags, path) in [
        (
            &[("llm.api_key", "sk-x"), ("llm.model", "gpt-5-mini")][..],
            "llm.base_url",
        ),
        (&[("auth.jwt.hs256_secret", "abc")], "auth.jwt.issuer"),
        (&[("auth.jwt.audience", "desk")], "auth.jwt.issuer"),
        (&[("index.url", "http://127.0.0.1:6334")], "index.url"),
        (&[("index.api_key", "secret")], "index.api_key"),
        (&[("index.backend", "qdrant")], "index.url"),
        (
            &[("index.backend", "qdrant"), ("index.url", "http://qdrant")],
            "index.url",
        ),
        (
            &[
                ("index.backend", "qdrant"),
                ("index.url", "http://qdrant:6334"),
                ("index.api_key", "secret"),
            ],
            "index.api_key",
        ),
        (
            &[
                ("index.backend", "qdrant"),
                ("index.url", "http://127.0.0.1:6334"),
                ("index.qdrant.write_consistency_factor", "2"),
            ],
            "index.qdrant.write_consistency_factor",
        ),
        (
            &[
                ("index.backend", "qdrant"),
                ("index.url", "http://127.0.0.1:6334"),
                ("index.qdrant.shards", "4"),
                ("index.qdrant.promote_from_chunks", "20000"),
            ],
            "index.qdrant.shards",
        ),
        (&[("index.backend", "pgvector")], "index.url"),
        (
            &[("index.backend", "pgvector"), ("index.url", "sqlite:index.db")],
            "index.url",
        ),
        (
            &[
                ("index.pgvector.m", "40"),
                ("index.pgvector.ef_construction", "64"),
            ],
            "index.pgvector.ef_construction",
        ),
        (&[("embedding.api_key", "sk-x")], "embedding.api_key"),
        (
            &[("embedding.base_url", "http://127.0.0.1:1/v1")],
            "embedding.base_url",
        ),
        (
            &[
                ("embedding.backend", "static"),
                ("embedding.query_prefix", "query: "),
            ],
            "embedding.query_prefix",
        ),
        (&[("rerank.backend", "llm")], "llm.base_url"),
        (&[("rerank.api_key", "sk-x")], "rerank.api_key"),
        (
            &[
                ("rerank.backend", "tei"),
                ("rerank.base_url", "http://127.0.0.1:1"),
            ],
            "rerank.model",
        ),
        (
            &[("rerank.backend", "cohere"), ("rerank.model", "rerank-v3.5")],
            "rerank.base_url",
        ),
        (&[("llm.total_timeout_s", "86400")], "llm.total_timeout_s"),
        (&[("embedding.timeout_s", "86400")], "embedding.timeout_s"),
    ] {
        let ConfigError(problems) = load(&[], flags).expect_err(path);

        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with(&format!("{path}:")), "{problems:?}");
    }
}

#[test]
fn tokens_of_another_issuer_cannot_claim_to_be_ours() {
    let flags = [
        ("auth.jwt.issuer", "frontdesk"),
        ("auth.jwt.audience", "desk"),
        ("auth.jwt.algorithm", "HS256"),
        (
            "auth.jwt.hs256_secret",
            "0123456789012345678901234567890123456789",
        ),
    ];

    let ConfigError(problems) = load(&[], &flags).expect_err("it is our own name");

    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].starts_with("auth.jwt.issuer:"), "{problems:?}");
}

#[test]
fn a_password_in_an_address_is_not_shown() {
    let settings = [
        ("database.url", "postgres://me:pg-secret@db:5432/frontdesk"),
        ("llm.base_url", "https://me:llm-secret@one.example/v1"),
        ("llm.model", "m"),
    ]
    .map(|(path, value)| (path.to_owned(), value.to_owned()));

    let shown = format!(
        "{:?}",
        Config::load(None, [], &settings).expect("settings that hold")
    );

    assert!(
        !shown.contains("pg-secret") && !shown.contains("llm-secret"),
        "{shown}"
    );
    assert!(
        shown.contains("@db:5432/frontdesk") && shown.contains("@one.example/v1"),
        "{shown}"
    );
}

#[test]
fn keys_leave_this_machine_encrypted_unless_a_private_network_is_allowed() {
    let load_with = |path: &str, url: &str, others: &[(&str, &str)]| {
        let (section, _) = path.split_once("api_key").expect("a key");
        let base_url = format!("{section}base_url");
        let flags = [&[(path, "sk-x"), (base_url.as_str(), url)], others].concat();
        load(&[], &flags)
    };
    let embedding = [
        ("embedding.backend", "openai"),
        ("embedding.model", "m"),
        ("embedding.dimension", "3"),
    ];
    let rerank = [("rerank.backend", "cohere"), ("rerank.model", "m")];
    for (path, others) in [
        ("embedding.api_key", &embedding[..]),
        ("llm.api_key", &[("llm.model", "m")]),
        ("rerank.api_key", &rerank),
        (
            "extract.transcription_api_key",
            &[("extract.transcription_model", "m")],
        ),
    ] {
        let ConfigError(problems) =
            load_with(path, "http://models.internal:8080/v1", others).expect_err(path);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(
            problems[0].starts_with(&format!("{path}: "))
                && problems[0].contains("outbound.allow_plain_keys"),
            "{problems:?}"
        );
        for harmless in [
            "https://models.example/v1",
            "http://127.0.0.1:8080/v1",
            "http://localhost:8080/v1",
            "http://[::1]:8080/v1",
        ] {
            load_with(path, harmless, others).unwrap_or_else(|error| panic!("{harmless}: {error}"));
        }
        let allowed = [
            others,
            &[("outbound.allow_plain_keys", "other.internal,models.internal")],
        ]
        .concat();
        load_with(path, "http://models.internal:8080/v1", &allowed).expect("allowed");
        load_with(path, "http://else.internal:8080/v1", &allowed).expect_err("not allowed");
    }
}
