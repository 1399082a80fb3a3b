//! What can be typed after `frontdesk`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgGroup, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};

use super::eval::EvalCommand;
use super::index::IndexCommand;
use crate::id::{ApiKeyId, ChatbotId, TenantId};
use crate::tenancy::role::KeyScope;

/// Longest life of a key made at the command line, in days.
const MAX_KEY_DAYS: u32 = 3650;

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    it failed; standard error says why
  2    the command line, or a value on it, is wrong
  3    the configuration is wrong; every problem is listed
  4    there is no such tenant, chatbot, key or test set
  5    the data folder or the address is in use by another process
  6    frontdesk index verify found that index and rows differ
  130  ended by a second signal, without waiting for what still ran";

const EXAMPLES: &str = "\
Examples:
  frontdesk serve                                     a complete server on 127.0.0.1:8080
  frontdesk serve --demo fixtures/demo                the same, with a chatbot to try when there is none yet
  frontdesk serve --config my.toml --listen 0.0.0.0:80
  frontdesk tenant create --name acme --json          a customer account and its first key
  frontdesk key create --tenant ID --scope chat       a key that can only ask
  frontdesk ingest --chatbot ID https://www.example.com/help/ handbook/ prices.pdf
  frontdesk ask --chatbot ID \"How long may I return goods?\"

Settings: config.default.toml describes all. They come from that file, then --config, then the environment
(FRONTDESK_SERVER__LISTEN=0.0.0.0:80), then --set and the other flags; later wins.";

/// Frontdesk answers a business' visitors from what the business knows: documents in, streamed and cited answers out.
#[derive(Debug, Parser)]
#[command(name = "frontdesk", version, propagate_version = true, after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(super) struct Cli {
    #[command(subcommand)]
    pub command: Command,
    #[arg(skip)]
    pub settings: SettingArgs,
}

// Flags that change settings, understood before and after every command. No doc comment: clap would show it in place of
// what each command says about itself.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Settings")]
pub(super) struct SettingArgs {
    /// A TOML file with the settings that differ from the defaults
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One setting, for example --set llm.model=gpt-5-mini; may be repeated
    #[arg(long, value_name = "PATH=VALUE", value_parser = parse_assignment)]
    pub set: Vec<(String, String)>,
    /// Where database, index and files are kept; short for --set data_dir=DIR
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the server
    Serve(ServeArgs),
    /// Bring the database's schema up to date, and say what that took
    ///
    /// Every other command does the same on its way; this one is for deployments that migrate first.
    Migrate {
        /// Also note in PostgreSQL that its files are in this data folder from now on: it was moved, restored or lost
        #[arg(long)]
        adopt_data_dir: bool,
    },
    /// Customer accounts
    #[command(subcommand)]
    Tenant(TenantCommand),
    /// API keys
    #[command(subcommand)]
    Key(KeyCommand),
    /// Ask a chatbot one question
    ///
    /// Asks the running server, or, where none runs, answers in this process. The answer is printed as it comes,
    /// followed by its citations.
    Ask(AskArgs),
    /// Give a chatbot websites, folders and files to know
    ///
    /// Sends files to the running server, or has it read websites, and waits until the chatbot knows them. Where no
    /// server runs, the work is done in this process. Folders are taken with all below them, but for links and hidden
    /// files.
    Ingest(IngestArgs),
    /// Embedding models
    #[command(subcommand)]
    Models(ModelsCommand),
    /// Whether the search index holds what the database says
    #[command(subcommand)]
    Index(IndexCommand),
    /// How good retrieval is, measured on test sets
    #[command(subcommand)]
    Eval(EvalCommand),
    /// Check that the server lives: exit code 0 if it does
    Health(ServerArgs),
    /// Print the OpenAPI document of all routes
    Openapi,
    /// Reads one document after another from standard input, within limits. The server starts it.
    #[command(hide = true)]
    ExtractChild,
}

#[derive(Debug, Subcommand)]
pub(super) enum ModelsCommand {
    /// Make a model without layers of an embedding model, for bulk imports on small machines
    ///
    /// It embeds some hundred times as many documents a second and finds less. Takes some ten seconds and no texts. Vectors
    /// of the two are not comparable: what was embedded with one has to be embedded anew with the other.
    Distill(DistillArgs),
}

#[derive(Debug, Args)]
pub(super) struct DistillArgs {
    /// The folder of the model to distil
    #[arg(long, value_name = "DIR", default_value = "models/all-MiniLM-L6-v2")]
    pub model: PathBuf,
    /// The folder to make; its name is the new model's
    #[arg(long, value_name = "DIR", default_value = "models/all-MiniLM-L6-v2-static")]
    pub target: PathBuf,
    /// Length of the new model's vectors
    #[arg(long, value_name = "NUMBER", default_value_t = 256)]
    pub dimension: usize,
}

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// What this process does
    #[arg(long, value_enum, default_value_t = Role::All)]
    pub role: Role,
    /// Where to listen; port 0 picks a free one. Short for --set server.listen=ADDR
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// When there is no tenant yet: make one with a chatbot that knows the files of this folder
    #[arg(long, value_name = "DIR")]
    pub demo: Option<PathBuf>,
}

/// What one process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Role {
    /// Answers requests and does the background work
    All,
    /// Answers requests only
    Api,
    /// Does the background work only, and opens no port
    Worker,
}

#[derive(Debug, Subcommand)]
pub(super) enum TenantCommand {
    /// Open a customer account with a first key of scope admin, shown this once
    Create {
        /// What to call it
        #[arg(long)]
        name: String,
        /// Print {"tenant_id", "api_key"}
        #[arg(long)]
        json: bool,
    },
    /// Show all customer accounts
    List {
        /// Print a list of {"id", "name", "state", "created_at"}
        #[arg(long)]
        json: bool,
    },
    /// Close a customer account to all its keys and members, at once; nothing is deleted
    Suspend {
        /// The tenant's id, as `tenant list` shows it
        id: TenantId,
    },
    /// Open a suspended customer account again
    Resume {
        /// The tenant's id, as `tenant list` shows it
        id: TenantId,
    },
    /// Say how much a customer account may use in a month at most; its own limits can only lower that
    #[command(group = ArgGroup::new("cap").required(true).multiple(true).args(["tokens", "cost_micro_usd"]))]
    Limit {
        /// The tenant's id, as `tenant list` shows it
        id: TenantId,
        /// Tokens in a month, or none
        #[arg(long, value_name = "NUMBER|none", value_parser = parse_cap)]
        tokens: Option<Cap>,
        /// Millionths of a US dollar in a month, or none
        #[arg(long, value_name = "NUMBER|none", value_parser = parse_cap)]
        cost_micro_usd: Option<Cap>,
    },
}

/// A cap on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cap(pub Option<i64>);

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Make a key, shown this once
    Create(CreateKeyArgs),
    /// End a key, at once and for good
    Revoke {
        /// The key's id, as `key create` and GET /api/keys show it
        id: ApiKeyId,
    },
}

#[derive(Debug, Args)]
pub(super) struct CreateKeyArgs {
    /// Whose key
    #[arg(long, value_name = "ID")]
    pub tenant: TenantId,
    /// What it may do: admin, ingest, chat, chat:groups or usage:read; may be repeated
    #[arg(long = "scope", value_name = "SCOPE", required = true, value_parser = parse_scope)]
    pub scopes: Vec<KeyScope>,
    /// What to call it
    #[arg(long, default_value = "made at the command line")]
    pub name: String,
    /// Restrict it to one chatbot; with the scopes ingest, chat and chat:groups only
    #[arg(long, value_name = "ID")]
    pub chatbot: Option<ChatbotId>,
    /// How long it works; without this, until it is revoked
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_KEY_DAYS)))]
    pub expires_in_days: Option<u32>,
    /// Print {"key_id", "api_key"}
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct AskArgs {
    /// Whom to ask
    #[arg(long, value_name = "ID")]
    pub chatbot: ChatbotId,
    /// What to ask
    pub question: String,
    /// Print the whole answer as JSON at the end, as POST /api/chat/message gives it
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub server: ServerArgs,
}

#[derive(Debug, Args)]
pub(super) struct IngestArgs {
    /// Websites (https://…), folders and files
    #[arg(required = true, value_name = "URL|FOLDER|FILE")]
    pub targets: Vec<String>,
    /// Whom to give them to
    #[arg(long, value_name = "ID")]
    pub chatbot: ChatbotId,
    /// Pages of each website, at most
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_pages: Option<u32>,
    /// Links away from each website's start page, at most
    #[arg(long, value_name = "NUMBER")]
    pub max_depth: Option<u32>,
    /// Only pages whose path fits this pattern, for example /help/**; may be repeated
    #[arg(long, value_name = "PATTERN")]
    pub include: Vec<String>,
    /// No pages whose path fits this pattern; may be repeated
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<String>,
    /// Send everything and leave the rest to the server
    #[arg(long)]
    pub no_wait: bool,
    /// A key of scope ingest; without it one is made for this command, for which the database has to be in reach
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    #[command(flatten)]
    pub server: ServerArgs,
}

#[derive(Clone, Debug, Args)]
pub(super) struct ServerArgs {
    /// Where the server is, for example http://127.0.0.1:8080; without this, at server.listen
    #[arg(long, value_name = "URL")]
    pub server: Option<url::Url>,
}

impl Cli {
    /// Reads a command line, the program's name first.
    pub(super) fn read(
        line: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    ) -> Result<Self, clap::Error> {
        let matches = with_settings(Self::command()).try_get_matches_from(line)?;
        let mut cli = Self::from_arg_matches(&matches)?;
        // Each level keeps its own settings: clap's global arguments would forget those of the levels above.
        let mut level = Some(&matches);
        while let Some(matches) = level {
            let settings = SettingArgs::from_arg_matches(matches)?;
            cli.settings.config = settings.config.or(cli.settings.config);
            cli.settings.data_dir = settings.data_dir.or(cli.settings.data_dir);
            cli.settings.set.extend(settings.set);
            level = matches.subcommand().map(|(_, matches)| matches);
        }
        Ok(cli)
    }

    /// The settings given as flags, in the order in which later ones win.
    pub(super) fn flags(&self) -> Vec<(String, String)> {
        let mut flags = self.settings.set.clone();
        if let Some(data_dir) = &self.settings.data_dir {
            flags.push(("data_dir".to_owned(), data_dir.clone()));
        }
        if let Command::Serve(ServeArgs {
            listen: Some(listen), ..
        }) = &self.command
        {
            flags.push(("server.listen".to_owned(), listen.clone()));
        }
        flags
    }
}

/// Lets `command` and all below it understand the flags that change settings.
fn with_settings(command: clap::Command) -> clap::Command {
    SettingArgs::augment_args(command).mut_subcommands(with_settings)
}

fn parse_assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((path, value)) if !path.trim().is_empty() => Ok((path.trim().to_owned(), value.to_owned())),
        _ => Err("write it as path.to.setting=value, for example llm.model=gpt-5-mini".to_owned()),
    }
}

fn parse_cap(text: &str) -> Result<Cap, String> {
    match text {
        "none" => Ok(Cap(None)),
        text => match text.parse() {
            Ok(number) if number >= 0 => Ok(Cap(Some(number))),
            _ => Err("a number from 0, or none".to_owned()),
        },
    }
}

fn parse_scope(text: &str) -> Result<KeyScope, String> {
    KeyScope::parse(text).ok_or_else(|| {
        format!(
            "there are the scopes {}",
            KeyScope::ALL.map(KeyScope::name).join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::read(line.split_whitespace())
    }

    #[test]
    fn the_commands_are_consistent() {
        with_settings(Cli::command()).debug_assert();
    }

    #[test]
    fn a_server_does_everything_unless_told_otherwise() {
        let Command::Serve(args) = parse("frontdesk serve").expect("no flag is needed").command else {
            panic!("serve was typed")
        };

        assert_eq!(args.role, Role::All);
        assert_eq!(args.demo, None);
    }

    #[test]
    fn settings_may_stand_anywhere_and_none_is_forgotten() {
        let cli = parse(
            "frontdesk --set llm.model=a=b --config one.toml key --set jobs.workers=2 revoke --set jobs.workers=3 --data-dir /srv/desk 0190b5a0-0000-7000-8000-000000000000",
        );

        let cli = cli.expect("all are known");

        assert_eq!(cli.settings.config, Some("one.toml".into()));
        let expected = [
            ("llm.model", "a=b"),
            ("jobs.workers", "2"),
            ("jobs.workers", "3"),
            ("data_dir", "/srv/desk"),
        ];
        assert_eq!(
            cli.flags(),
            expected.map(|(path, value)| (path.to_owned(), value.to_owned())),
            "only the first equals sign parts path and value"
        );
    }

    #[test]
    fn short_flags_win_over_set() {
        let cli = parse("frontdesk --data-dir /srv/desk serve --listen 127.0.0.1:0 --set server.listen=127.0.0.1:1 --set data_dir=x").expect("all are known");

        let flags = cli.flags();

        let last = |path: &str| {
            flags
                .iter()
                .rev()
                .find(|(known, _)| known == path)
                .map(|(_, value)| value.as_str())
        };
        assert_eq!(last("server.listen"), Some("127.0.0.1:0"));
        assert_eq!(last("data_dir"), Some("/srv/desk"));
    }

    #[test]
    fn a_setting_without_a_value_is_refused() {
        for line in ["frontdesk serve --set llm.model", "frontdesk serve --set =x"] {
            assert_eq!(
                parse(line).expect_err("refused").kind(),
                ErrorKind::ValueValidation,
                "{line}"
            );
        }
    }

    #[test]
    fn a_key_needs_a_tenant_and_a_known_scope() {
        let tenant = "0190b5a0-0000-7000-8000-000000000000";

        let Command::Key(KeyCommand::Create(args)) = parse(&format!(
            "frontdesk key create --tenant {tenant} --scope chat --scope usage:read"
        ))
        .expect("valid")
        .command
        else {
            panic!("key create was typed")
        };

        assert_eq!(args.scopes, [KeyScope::Chat, KeyScope::UsageRead]);
        for (rest, kind) in [
            (format!("--tenant {tenant}"), ErrorKind::MissingRequiredArgument),
            (
                format!("--tenant {tenant} --scope everything"),
                ErrorKind::ValueValidation,
            ),
            (
                "--tenant acme --scope chat".to_owned(),
                ErrorKind::ValueValidation,
            ),
            (
                format!("--tenant {tenant} --scope chat --expires-in-days 0"),
                ErrorKind::ValueValidation,
            ),
        ] {
            assert_eq!(
                parse(&format!("frontdesk key create {rest}"))
                    .expect_err("refused")
                    .kind(),
                kind,
                "{rest}"
            );
        }
    }

    #[test]
    fn help_tells_examples_and_exit_codes() {
        let help = with_settings(Cli::command()).render_long_help().to_string();

        for text in [
            "frontdesk tenant create --name acme --json",
            "Exit codes:",
            "serve",
            "migrate",
            "ask",
            "health",
        ] {
            assert!(help.contains(text), "{text:?} is missing in {help}");
        }
        assert!(!help.contains("extract-child"), "the hidden command shows");
    }

    #[test]
    fn each_command_tells_in_its_help_what_it_does() {
        for (line, about) in [
            ("frontdesk --help", "Frontdesk answers a business' visitors"),
            ("frontdesk serve --help", "Run the server"),
            ("frontdesk ask --help", "Ask a chatbot one question"),
            (
                "frontdesk ingest --help",
                "Give a chatbot websites, folders and files to know",
            ),
            ("frontdesk key create --help", "Make a key, shown this once"),
        ] {
            let help = parse(line).expect_err("help ends the reading").to_string();

            assert!(help.starts_with(about), "{line}: {help}");
            assert!(help.contains("--set <PATH=VALUE>"), "{line}: {help}");
            assert!(!help.contains("Flags that change"), "{line}: {help}");
        }
        let all = parse("frontdesk --help")
            .expect_err("help ends the reading")
            .to_string();
        assert!(all.contains("Ask a chatbot one question"), "{all}");
    }
}
