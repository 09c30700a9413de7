//! Control planes under test, and how their REST API is asked.

use crate::{
    PATIENCE,
    process::{Process, programs},
    wait,
};
use anyhow::{Context, Result, bail};
use reqwest::{Method, StatusCode, blocking::Client};
use serde_json::{Value, json};
use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

/// Where the API server of a cluster asks the control plane of its zone.
pub const ADMISSION: u16 = 5443;

/// The pod that the control plane of a cluster takes for its own.
pub const POD: &str = "atoll-zone-cp-0";

/// A global or a zone control plane on an address of its own, with the ports of the documents.
#[derive(Debug)]
pub struct ControlPlane {
    /// Where it is.
    pub address: Ipv4Addr,
    /// Its files: settings, log, data.
    pub folder: PathBuf,
    name: String,
    program: &'static str,
    namespace: Option<String>,
    client: Client,
    process: Option<Process>,
}

/// What a zone is started with.
#[derive(Clone, Copy, Debug)]
pub struct Zone<'a> {
    /// Its name.
    pub name: &'a str,
    /// The address of its control plane.
    pub address: Ipv4Addr,
    /// The namespace of its control plane.
    pub namespace: Option<&'a str>,
}

impl ControlPlane {
    /// A global control plane that is not started yet; its files are in `folder`.
    pub fn global(folder: &Path, address: Ipv4Addr) -> Result<Self> {
        let mut settings = Self::settings(folder, address);
        set(&mut settings, "kds", json!({ "listen": format!("{address}:5685") }));
        Self::new("global", folder, address).with("global-cp", None, &settings)
    }

    /// The control plane of a zone with a token of `global`, which runs; not started yet.
    pub fn zone(folder: &Path, zone: Zone<'_>, global: &Self) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let token = folder.join("token");
        fs::write(&token, global.zone_token(zone.name)?)?;
        let Zone { address, namespace, .. } = zone;
        let mut settings = Self::settings(folder, address);
        set(&mut settings, "zone", json!({ "name": zone.name }));
        let at_global = json!({
            "address": format!("https://{}:5685", global.address),
            "caFile": global.ca(),
            "tokenFile": token,
        });
        set(&mut settings, "global", at_global);
        set(&mut settings, "proxies", json!({ "listen": format!("{address}:5678") }));
        // A namespace has the port of the system's resolver to itself.
        let dns = if namespace.is_some() { 53 } else { 5653 };
        set(&mut settings, "dns", json!({ "listen": format!("{address}:{dns}") }));
        Self::new(zone.name, folder, address).with("zone-cp", namespace, &settings)
    }

    /// The control plane of a zone that is a cluster, as a process beside it; not started yet.
    /// `kubeconfig` says who it is there.
    pub fn of_cluster(
        folder: &Path,
        zone: Zone<'_>,
        kubeconfig: &Path,
        global: Option<&Self>,
    ) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let Zone { name, address, namespace } = zone;
        let this = match global {
            Some(global) => Self::zone(folder, zone, global)?,
            None => {
                let mut settings = Self::settings(folder, address);
                set(&mut settings, "zone", json!({ "name": name }));
                set(&mut settings, "proxies", json!({ "listen": format!("{address}:5678") }));
                set(&mut settings, "dns", json!({ "listen": format!("{address}:5653") }));
                Self::new(name, folder, address).with("zone-cp", namespace, &settings)?
            }
        };
        this.configure("environment", json!("kubernetes"))?;
        this.configure("store", json!({ "type": "kubernetes" }))?;
        let admission = json!({ "listen": format!("{address}:{ADMISSION}") });
        let cluster = json!({ "kubeconfig": kubeconfig, "podName": POD, "admission": admission });
        this.configure("kubernetes", cluster)?;
        Ok(this)
    }

    fn new(name: &str, folder: &Path, address: Ipv4Addr) -> Self {
        let client = Client::builder().no_proxy().timeout(Duration::from_secs(5));
        Self {
            address,
            folder: folder.to_owned(),
            name: name.to_owned(),
            program: "",
            namespace: None,
            client: client.build().unwrap_or_default(),
            process: None,
        }
    }

    fn with(
        mut self,
        program: &'static str,
        namespace: Option<&str>,
        settings: &Value,
    ) -> Result<Self> {
        fs::write(self.settings_file(), serde_saphyr::to_string(settings)?)?;
        self.program = program;
        self.namespace = namespace.map(str::to_owned);
        Ok(self)
    }

    fn settings(folder: &Path, address: Ipv4Addr) -> Value {
        let at = |port: u16| format!("{address}:{port}");
        json!({
            "dataDir": folder.join("data"),
            "tls": { "names": [address.to_string()] },
            "api": {
                "http": { "address": at(5681) },
                "https": { "address": at(5682) },
                "hosts": [address.to_string()],
            },
            "admin": { "listen": at(5680) },
        })
    }

    fn settings_file(&self) -> PathBuf {
        self.folder.join("settings.yaml")
    }

    /// The certificate that its own descends from.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.folder.join("data/tls/ca.crt")
    }

    /// Gives a setting another value, from its next start on.
    pub fn configure(&self, key: &str, value: Value) -> Result<()> {
        let file = self.settings_file();
        let mut settings = serde_saphyr::from_str(&fs::read_to_string(&file)?)?;
        set(&mut settings, key, value);
        Ok(fs::write(file, serde_saphyr::to_string(&settings)?)?)
    }

    fn command(&self) -> Result<[String; 3]> {
        let program = programs()?.join(self.program).display().to_string();
        Ok([program, "--config".to_owned(), self.settings_file().display().to_string()])
    }

    /// Starts its program and does not wait.
    pub fn launch(&self) -> Result<Process> {
        let command = self.command()?;
        let command = command.each_ref().map(String::as_str);
        Process::start(&self.name, &self.folder, self.namespace.as_deref(), &command)
    }

    /// Starts it and waits until it is ready.
    pub fn start(&mut self) -> Result<()> {
        let process = self.launch()?;
        self.becomes_ready(process)
    }

    /// The same, and `hear` gets each line of its log at the moment when it is written.
    pub fn start_heard(&mut self, hear: impl FnMut(&str) + Send + 'static) -> Result<()> {
        let command = self.command()?;
        let command = command.each_ref().map(String::as_str);
        let namespace = self.namespace.as_deref();
        let process = Process::start_heard(&self.name, &self.folder, namespace, &command, hear)?;
        self.becomes_ready(process)
    }

    fn becomes_ready(&mut self, mut process: Process) -> Result<()> {
        let url = format!("http://{}:5680/ready", self.address);
        wait::until(&format!("{} is ready", self.name), PATIENCE, || {
            process.check()?;
            let answer = self.client.get(&url).send()?;
            let status = answer.status();
            if status.is_success() {
                Ok(())
            } else {
                bail!("{status}: {}\n{}", answer.text()?, process.tail())
            }
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// Its process.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().with_context(|| format!("{} does not run", self.name))
    }

    /// The end of its log.
    #[must_use]
    pub fn tail(&self) -> String {
        self.process.as_ref().map(Process::tail).unwrap_or_default()
    }

    /// Asks it to end, and waits.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.process.take().context("it does not run")?.stop(PATIENCE)
    }

    /// Ends it at once.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("it does not run")?.kill()
    }

    /// Its administrator's token.
    pub fn token(&self) -> Result<String> {
        Ok(fs::read_to_string(self.folder.join("data/admin-token"))?.trim().to_owned())
    }

    /// The status of a request, with the token given.
    pub fn status(&self, path: &str, token: Option<&str>) -> Result<StatusCode> {
        let mut request = self.client.get(self.url(path));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        Ok(request.send()?.status())
    }

    /// What it answers its administrator at a path, whatever that is.
    pub fn answer(&self, path: &str) -> Result<(StatusCode, String)> {
        let request = self.client.get(self.url(path)).bearer_auth(self.token()?);
        let answer = request.timeout(PATIENCE).send()?;
        Ok((answer.status(), answer.text()?))
    }

    /// The URL of a path of its API.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}:5681{path}", self.address)
    }

    fn text(&self, method: Method, path: &str, body: Option<&Value>) -> Result<String> {
        let request =
            self.client.request(method.clone(), self.url(path)).bearer_auth(self.token()?);
        let request = if let Some(body) = body { request.json(body) } else { request };
        let answer = request.send()?;
        let (status, text) = (answer.status(), answer.text()?);
        if status.is_success() { Ok(text) } else { bail!("{method} {path}: {status}: {text}") }
    }

    /// Reads a document as its administrator.
    pub fn get(&self, path: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.text(Method::GET, path, None)?)?)
    }

    /// Reads a document as its administrator, whenever it is called, elsewhere too.
    pub fn getter(&self, path: &str) -> Result<impl Fn() -> Result<Value> + Send + use<>> {
        let (client, url, token) = (self.client.clone(), self.url(path), self.token()?);
        Ok(move || {
            let answer = client.get(&url).bearer_auth(&token).send()?.error_for_status()?;
            Ok(answer.json()?)
        })
    }

    /// Writes a resource as its administrator.
    pub fn put(&self, path: &str, body: &Value) -> Result<()> {
        self.text(Method::PUT, path, Some(body)).map(drop)
    }

    /// Deletes a resource as its administrator.
    pub fn delete(&self, path: &str) -> Result<()> {
        self.text(Method::DELETE, path, None).map(drop)
    }

    /// A token for the control plane of a zone.
    pub fn zone_token(&self, zone: &str) -> Result<String> {
        let body = json!({ "zone": zone, "scope": ["cp"], "validFor": "24h" });
        self.text(Method::POST, "/tokens/zone", Some(&body))
    }

    /// A token for a user of its API.
    pub fn user_token(&self, name: &str, groups: &[&str]) -> Result<String> {
        let body = json!({ "name": name, "groups": groups, "validFor": "1h" });
        self.text(Method::POST, "/tokens/user", Some(&body))
    }

    /// A token for the proxies that `claims` names.
    pub fn dataplane_token(&self, claims: &Value) -> Result<String> {
        let mut body = json!({ "mesh": "default", "name": "", "tags": {}, "validFor": "24h" });
        for (key, value) in claims.as_object().into_iter().flatten() {
            set(&mut body, key, value.clone());
        }
        self.text(Method::POST, "/tokens/dataplane", Some(&body))
    }
}

/// Sets a field of an object.
pub fn set(value: &mut Value, key: &str, field: Value) {
    if let Value::Object(fields) = value {
        fields.insert(key.to_owned(), field);
    }
}
