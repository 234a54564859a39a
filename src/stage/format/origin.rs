//! Where events come from, made once and shared: an [`Origin`] is wanted for every event, but there are few of them.

use std::sync::Arc;

use hashbrown::{Equivalent, HashMap, HashSet};

use super::FormatOptions;
use crate::json::Text;
use crate::model::{Cloud, Lane, Origin, RawRecord};

/// More origins than any estate has; beyond it the cache starts over, so that hostile input cannot fill the memory.
const ORIGINS_MAX: usize = 4_096;

/// The parts of an origin, borrowed, for looking it up. Hashes as [`Origin`] does: same fields, same order.
#[derive(Debug, Clone, Copy, Hash)]
pub(super) struct Parts<'a> {
    pub cloud: Cloud,
    pub account: Option<&'a str>,
    pub region: Option<&'a str>,
    pub resource_group: Option<&'a str>,
    pub cluster: &'a str,
}

impl Equivalent<Arc<Origin>> for Parts<'_> {
    fn equivalent(&self, origin: &Arc<Origin>) -> bool {
        self.cloud == origin.cloud
            && self.cluster == &*origin.cluster
            && self.account == origin.account.as_deref()
            && self.region == origin.region.as_deref()
            && self.resource_group == origin.resource_group.as_deref()
    }
}

/// The origins seen so far by one worker.
#[derive(Debug, Default)]
pub(super) struct Origins {
    known: HashSet<Arc<Origin>>,
    /// Azure resource ids as they stood in the text.
    azure: HashMap<Box<[u8]>, Arc<Origin>>,
    /// The last bare event's: its cloud, the cluster's name by identity, and the answer.
    bare: Option<(Cloud, Arc<str>, Arc<Origin>)>,
}

impl Origins {
    /// The origin with these parts.
    pub fn get(&mut self, parts: Parts<'_>) -> Arc<Origin> {
        if let Some(origin) = self.known.get(&parts) {
            return Arc::clone(origin);
        }
        if self.known.len() >= ORIGINS_MAX {
            self.known.clear();
        }
        let origin = Arc::new(Origin {
            cloud: parts.cloud,
            account: parts.account.map(Arc::from),
            region: parts.region.map(Arc::from),
            resource_group: parts.resource_group.map(Arc::from),
            cluster: Arc::from(parts.cluster),
        });
        self.known.insert(Arc::clone(&origin));
        origin
    }

    /// The origin of an event that nothing around it names: by record, then by the source's configuration, then by what
    /// the event itself hints at (an id rather than a name), then by lane.
    pub fn bare(
        &mut self,
        cloud: Cloud,
        hint: Option<&str>,
        options: &FormatOptions,
        record: &RawRecord,
        lane: &Lane,
    ) -> Arc<Origin> {
        let named = record.cluster.as_ref().or(lane.cluster.as_ref());
        if named.is_none()
            && let Some(hint) = hint
        {
            return self.get(configured(cloud, hint, options));
        }
        let cluster = named.unwrap_or(&lane.fallback_cluster);
        if let Some((last_cloud, last_cluster, origin)) = &self.bare
            && *last_cloud == cloud
            && Arc::ptr_eq(last_cluster, cluster)
        {
            return Arc::clone(origin);
        }
        let origin = self.get(configured(cloud, cluster, options));
        self.bare = Some((cloud, Arc::clone(cluster), Arc::clone(&origin)));
        origin
    }

    /// The origin that an Azure resource id names (`/subscriptions/…/resourcegroups/…/providers/…/managedclusters/…` in
    /// any case), lower-cased. `None` where it names no cluster.
    pub fn azure(&mut self, id: Text<'_>, options: &FormatOptions) -> Option<Arc<Origin>> {
        if let Some(origin) = self.azure.get(id.raw()) {
            return Some(Arc::clone(origin));
        }
        let path = id.decode().to_lowercase();
        let mut segments = path.split('/').filter(|segment| !segment.is_empty());
        let (mut account, mut group, mut cluster, mut cloud) = (None, None, None, Cloud::Aks);
        while let Some(segment) = segments.next() {
            match segment {
                "subscriptions" => account = segments.next(),
                "resourcegroups" => group = segments.next(),
                "managedclusters" => cluster = segments.next(),
                "connectedclusters" => {
                    // Arc: somebody's own cluster that Azure merely knows.
                    cloud = Cloud::Other;
                    cluster = segments.next();
                }
                _ => {}
            }
        }
        let origin = self.get(Parts {
            cloud,
            account: account.or(options.account.as_deref()),
            region: options.region.as_deref(),
            resource_group: group,
            cluster: cluster?,
        });
        if self.azure.len() >= ORIGINS_MAX {
            self.azure.clear();
        }
        self.azure.insert(id.raw().into(), Arc::clone(&origin));
        Some(origin)
    }
}

/// An origin of which only the cluster's name is known beside the configuration.
fn configured<'a>(cloud: Cloud, cluster: &'a str, options: &'a FormatOptions) -> Parts<'a> {
    Parts {
        cloud,
        account: options.account.as_deref(),
        region: options.region.as_deref(),
        resource_group: None,
        cluster,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_parts_share_one_origin() {
        let mut origins = Origins::default();
        let parts = Parts { cloud: Cloud::Gke, account: Some("p"), region: None, resource_group: None, cluster: "c" };
        let first = origins.get(parts);
        assert!(Arc::ptr_eq(&first, &origins.get(parts)));
        assert!(!Arc::ptr_eq(&first, &origins.get(Parts { region: Some("r"), ..parts })));
    }

    #[test]
    fn azure_ids_are_read_in_any_case() {
        let mut origins = Origins::default();
        let options = FormatOptions::default();
        let upper = "/SUBSCRIPTIONS/S-1/RESOURCEGROUPS/RG/PROVIDERS/MICROSOFT.CONTAINERSERVICE/MANAGEDCLUSTERS/SHOP";
        let lower = "/subscriptions/s-1/resourceGroups/rg/providers/Microsoft.ContainerService/managedClusters/shop";
        let first = origins.azure(Text::plain(upper), &options).expect("names a cluster");
        let second = origins.azure(Text::plain(lower), &options).expect("names a cluster");
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!(first.cluster_id(), "s-1/rg/shop");
        assert!(origins.azure(Text::plain("/subscriptions/s-1"), &options).is_none());
    }
}
