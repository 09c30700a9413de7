//! What an API server for tests can do.

use anyhow::{Context, Result, bail};
use apiserver::{ApiServer, Group, Options, trial};
use libtest_mimic::Arguments;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use std::{
    io::{BufRead, BufReader},
    process::{Command, ExitCode, Stdio},
};

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(HOLD) {
        return if hold().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let trials = vec![
        trial(
            "what_was_written_is_there_after_a_restart",
            what_was_written_is_there_after_a_restart,
        ),
        trial(
            "a_paused_server_answers_nobody_until_it_goes_on",
            a_paused_server_answers_nobody_until_it_goes_on,
        ),
        trial(
            "controllers_delete_what_is_in_a_namespace",
            controllers_delete_what_is_in_a_namespace,
        ),
        trial("a_user_may_do_what_roles_say", a_user_may_do_what_roles_say),
        trial("processes_end_with_who_started_them", processes_end_with_who_started_them),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn what_was_written_is_there_after_a_restart() -> Result<()> {
    let mut server = ApiServer::start()?;
    server.kubectl(&["create", "configmap", "kept", "--from-literal=key=value"])?;
    server.stop();
    if server.kubectl(&["get", "configmap", "kept"]).is_ok() {
        bail!("a server that was stopped answers");
    }
    server.start_again()?;
    let value = server.kubectl(&["get", "configmap", "kept", "-o", "jsonpath={.data.key}"])?;
    if value == "value" { Ok(()) } else { bail!("{value:?}") }
}

fn a_paused_server_answers_nobody_until_it_goes_on() -> Result<()> {
    let server = ApiServer::start()?;
    let ask = ["get", "--raw", "/version", "--request-timeout=1s"];
    let paused = server.pause()?;
    if server.kubectl(&ask).is_ok() {
        bail!("a server that was paused answers");
    }
    drop(paused);
    server.kubectl(&ask).map(drop)
}

fn controllers_delete_what_is_in_a_namespace() -> Result<()> {
    let server = ApiServer::start_with(Options { controllers: true, ..Options::default() })?;
    server.kubectl(&["create", "namespace", "shop"])?;
    server.kubectl(&["create", "configmap", "cart", "-n", "shop"])?;
    server.kubectl(&["delete", "namespace", "shop", "--timeout=60s"])?;
    match server.kubectl(&["get", "namespace", "shop"]) {
        Err(error) if error.to_string().contains("not found") => Ok(()),
        other => bail!("{other:?}"),
    }
}

fn a_user_may_do_what_roles_say() -> Result<()> {
    let server = ApiServer::start()?;
    server.kubectl(&["create", "serviceaccount", "reader"])?;
    server.kubectl(&["create", "role", "reads", "--verb=list", "--resource=configmaps"])?;
    server.kubectl(&[
        "create",
        "rolebinding",
        "b",
        "--role=reads",
        "--serviceaccount=default:reader",
    ])?;
    let config = server.kubeconfig_of("system:serviceaccount:default:reader", &[])?;
    let config = format!("--kubeconfig={}", config.display());
    server.kubectl(&["get", "configmaps", &config])?;
    match server.kubectl(&["get", "secrets", &config]) {
        Err(error) if error.to_string().contains("Forbidden") => Ok(()),
        other => bail!("{other:?}"),
    }
}

/// The word that makes this program hold a process until it is killed.
const HOLD: &str = "hold";

/// A test that is killed cannot clean up.
fn processes_end_with_who_started_them() -> Result<()> {
    let mut holder = Command::new(std::env::current_exe()?);
    let mut holder = holder.arg(HOLD).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut said = String::new();
    BufReader::new(holder.stdout.take().context("its output")?).read_line(&mut said)?;
    let held = Pid::from_raw(said.trim().parse()?).context("a process id")?;
    let held = pidfd_open(held, PidfdFlags::empty())?;
    holder.kill()?;
    holder.wait()?;
    let patience = Timespec { tv_sec: 10, tv_nsec: 0 };
    match poll(&mut [PollFd::new(&held, PollFlags::IN)], Some(&patience))? {
        0 => bail!("it outlived who started it"),
        _ => Ok(()),
    }
}

#[expect(clippy::print_stdout, reason = "a test reads it")]
fn hold() -> Result<()> {
    let group = Group::new()?;
    let mut command = Command::new("sleep");
    let held = group.spawn(command.arg("1000"))?;
    println!("{}", held.id());
    // Until it is killed.
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}
