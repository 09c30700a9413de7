//! Policies of global, and those of a namespace of a cluster: seen by what becomes of requests.

use super::world::{SHOP, World, Zone, status};
use anyhow::{Result, bail};
use e2e::{PATIENCE, wait};
use serde_json::json;

/// The namespace of who is not of the shop.
pub(crate) const STREET: &str = "street";

/// Takes longer than the policy of global allows, and not as long as the others do.
const CART: &str = "http://cart.shop.svc.k8s-1.mesh.local:8080/slow";
const WEB: &str = "http://web.svc.vm.mesh.local:8080/slow";

/// What a caller gets that waited long enough, and one that did not.
const ANSWERED: &str = "200";
const TIMED_OUT: &str = "504";

/// Who calls.
#[derive(Clone, Copy, Debug)]
enum Caller {
    /// A machine of the other zone.
    Machine,
    /// A pod of the shop.
    Front,
    /// A pod of another namespace.
    Visitor,
}

/// One of global is for both zones. One of a service's owner is for its callers in every zone, and goes
/// before that of global; one of callers is for their namespace.
pub(crate) fn reach_whom_they_are_for(world: &World) -> Result<()> {
    use Caller::{Front, Machine, Visitor};
    let zone = world.zone("k8s-1")?;
    zone.kubectl().rolled_out(STREET, "deployment/visitor")?;
    let become_ = |expected: &[(Caller, &str, &str)]| {
        expected.iter().try_for_each(|(caller, url, status)| {
            wait::until(&format!("{caller:?} gets {status} of {url}"), PATIENCE, || {
                is(world, zone, *caller, url, status)
            })
        })
    };
    let path = "/meshes/default/meshtimeouts/impatient";
    world.lab.global.put(path, &impatient())?;
    become_(&[(Machine, CART, TIMED_OUT), (Front, WEB, TIMED_OUT), (Visitor, WEB, TIMED_OUT)])?;
    zone.kubectl().apply(include_str!("policies.yaml"))?;
    become_(&[(Machine, CART, ANSWERED), (Visitor, CART, ANSWERED), (Front, WEB, ANSWERED)])?;
    // Both came at once, so what is for others would be there as well.
    is(world, zone, Visitor, WEB, TIMED_OUT)?;
    is(world, zone, Machine, WEB, TIMED_OUT)?;
    let gone = ["delete", "--namespace", SHOP, "meshtimeouts", "--all"];
    zone.kubectl().run(&gone)?;
    become_(&[(Machine, CART, TIMED_OUT), (Front, WEB, TIMED_OUT)])?;
    world.lab.global.delete(path)?;
    become_(&[(Machine, CART, ANSWERED), (Visitor, WEB, ANSWERED)])
}

/// Global takes one of a kind from each zone. Whose second one it is learns of it beside the object.
pub(crate) fn are_told_of_where_global_refuses_them(world: &mut World) -> Result<()> {
    const KIND: &str = "MeshHealthCheck";
    let global = &mut world.lab.global;
    global.stop()?;
    let quota = json!({ "kinds": { KIND: { "resources": 1 } } });
    let listen = format!("{}:5685", global.address);
    global.configure("kds", json!({ "listen": listen, "zoneQuota": quota }))?;
    global.start()?;
    let kubectl = world.zone("k8s-1")?.kubectl();
    kubectl.apply(include_str!("checks.yaml"))?;
    let path = "--output=jsonpath={range .items[*]}{.involvedObject.kind} {.message}{'\\n'}{end}";
    let refused = "--field-selector=reason=RefusedByGlobal";
    wait::until("the refusal is told", PATIENCE, || {
        let told = kubectl.run(&["get", "events", "--namespace", SHOP, refused, path])?;
        let mut told = told.lines();
        match (told.next(), told.next()) {
            (Some(one), None)
                if one.starts_with(KIND)
                    && one.contains("quota: zone k8s-1 has 1 MeshHealthCheck") =>
            {
                Ok(())
            }
            other => bail!("{other:?}"),
        }
    })?;
    kubectl.run(&["delete", "--namespace", SHOP, "meshhealthchecks", "--all"]).map(drop)
}

/// Nobody waits for what takes its time.
fn impatient() -> serde_json::Value {
    let conf = json!({ "http": { "requestTimeout": "300ms" } });
    json!({
        "type": "MeshTimeout", "mesh": "default", "name": "impatient",
        "spec": {
            "targetRef": { "kind": "Mesh" },
            "to": [{ "targetRef": { "kind": "Mesh" }, "default": conf }],
        },
    })
}

/// Fails unless a request of `caller` ends with `expected`.
fn is(world: &World, zone: &Zone, caller: Caller, url: &str, expected: &str) -> Result<()> {
    let command = status(url);
    let pod = |namespace, of: &str| {
        zone.kubectl().exec(namespace, &format!("deployment/{of}"), of, &command)
    };
    let found = match caller {
        Caller::Machine => world.machine.run(&command),
        Caller::Front => pod(SHOP, "front"),
        Caller::Visitor => pod(STREET, "visitor"),
    }?;
    if found == expected { Ok(()) } else { bail!("{caller:?} gets {found} of {url}") }
}
