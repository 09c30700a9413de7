//! Tokens against what their bearers want to be.

use super::auth::{Wanted, admit};
use identity::token::DataplaneClaims;
use resource::{Labels, MeshName, ResourceKey, label};
use tonic::Code;

fn claims() -> DataplaneClaims {
    DataplaneClaims { mesh: "default".into(), workload: "web".into(), ..DataplaneClaims::default() }
}

fn admitted(claims: &DataplaneClaims, mesh: &str, name: &str, workload: &str) -> Option<Code> {
    let key = ResourceKey::in_mesh(&MeshName::new(mesh).unwrap(), name);
    let labels = Labels::from_iter([(label::WORKLOAD, workload)]);
    let wanted = Wanted { key: &key, labels: &labels, ingress: false, needs_workload: true };
    admit(claims, &wanted).err().map(|status| status.code())
}

#[test]
fn a_token_admits_only_what_it_says() {
    assert_eq!(admitted(&claims(), "default", "web-1", "web"), None);
    let denied = Some(Code::PermissionDenied);
    assert_eq!(admitted(&claims(), "other", "web-1", "web"), denied, "another mesh");
    assert_eq!(admitted(&claims(), "default", "web-1", "cart"), denied, "another workload");
    let named = DataplaneClaims { name: "web-2".into(), ..claims() };
    assert_eq!(admitted(&named, "default", "web-1", "web"), denied, "another name");
    let any = DataplaneClaims { workload: String::new(), ..claims() };
    assert_eq!(admitted(&any, "default", "web-1", "web"), denied, "bound to no workload");
    let ingress = DataplaneClaims { r#type: "ingress".into(), ..claims() };
    assert_eq!(admitted(&ingress, "default", "web-1", "web"), denied, "another type");
}
