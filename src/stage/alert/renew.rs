//! One set of detections follows another while events flow: findings that are open stay open.

use std::collections::HashMap;
use std::sync::Arc;

use super::exceptions::Exceptions;
use super::{AlertOptions, AlertSpec, AlertStage, ExceptionSpec};
use crate::detection::DetectionSet;

impl AlertStage {
    /// Goes on with another set: findings of detections that are still there by id stay open, those of others are
    /// forgotten. To be called after a flush, as what has gathered of the latter would be lost. Exceptions count from
    /// zero.
    pub fn follow(&mut self, set: &DetectionSet, options: AlertOptions) {
        let specs: Vec<AlertSpec> = set.detections.iter().map(|detection| AlertSpec::of(detection)).collect();
        let ids: Vec<Arc<str>> = specs.iter().map(|spec| Arc::clone(&spec.id)).collect();
        let places: HashMap<&str, usize> = ids.iter().enumerate().map(|(place, id)| (&**id, place)).collect();
        let place_of = |old: usize| places.get(&*self.specs.get(old)?.id).copied();
        self.suppression.renumber(place_of);
        let exceptions = set.exceptions.iter().map(ExceptionSpec::of).collect();
        self.exceptions = Exceptions::new(exceptions, &ids, options.today);
        (self.specs, self.options) = (specs, options);
    }
}
