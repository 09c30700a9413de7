//! The command line: everything that an operator does with a control plane.

mod apply;
mod args;
mod check;
mod client;
mod connection;
mod demo;
mod documents;
mod expiry;
mod inspect;
mod install;
mod kind;
mod lists;
mod output;
mod restore;
mod status;
mod token;
mod transparent_proxy;
mod zone;

use self::{
    args::{Args, Command},
    client::Client,
    output::Output,
};
use clap::{CommandFactory, Parser};
use std::{
    ffi::OsString,
    io::{self, Write},
    process::ExitCode,
};

/// Runs a command line, and says how it went.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => {
            // Help and version are errors to clap, with exit code 0.
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            return error.print().map_or(ExitCode::FAILURE, |()| ExitCode::from(code));
        }
    };
    let runtime = tokio::runtime::Runtime::new();
    let outcome = runtime
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(command(args, &mut io::stdout())));
    match outcome {
        Ok(code) => code,
        Err(error) => {
            // Nobody is left to be told if this fails.
            writeln!(io::stderr(), "atoll: {error:#}").ok();
            ExitCode::FAILURE
        }
    }
}

async fn command(args: Args, out: &mut (dyn Write + Send)) -> anyhow::Result<ExitCode> {
    let mut out = Output::new(out);
    let Args { connection, command } = args;
    let done = match command {
        Command::Wait(wait) => return wait.run(&Client::new(&connection)?, &mut out).await,
        Command::Check(check) => return check.run(&mut out).await,
        Command::Expiry(expiry) => return expiry.run(&Client::new(&connection)?, &mut out).await,
        Command::Status(status) => status.run(&Client::new(&connection)?, &mut out).await,
        Command::Completion { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "atoll", &mut text);
            out.text(&String::from_utf8_lossy(&text))
        }
        Command::Install { what } => what.run(&mut out),
        Command::Uninstall { what } => what.run(&mut out),
        Command::Demo(demo) => demo::run(&demo, &mut out).await,
        Command::Context { command } => connection.edit(&command, &mut out),
        Command::Apply(apply) => apply.run(&Client::new(&connection)?, &mut out).await,
        Command::Get(get) => get.run(&Client::new(&connection)?, &mut out).await,
        Command::Delete(delete) => delete.run(&Client::new(&connection)?, &mut out).await,
        Command::Token { command } => command.run(&Client::new(&connection)?, &mut out).await,
        Command::Zone { command } => command.run(&connection, &mut out).await,
        Command::Inspect { command } => command.run(&Client::new(&connection)?, &mut out).await,
        Command::Zones => lists::zones(&Client::new(&connection)?, &mut out).await,
        Command::Dataplanes { mesh } => {
            lists::dataplanes(&Client::new(&connection)?, mesh.as_deref(), &mut out).await
        }
    };
    done.map(|()| ExitCode::SUCCESS)
}
