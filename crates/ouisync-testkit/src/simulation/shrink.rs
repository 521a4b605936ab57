//! Makes a failing script short: leaves out what it fails without.

use super::Plan;

/// A shorter plan that fails, too, after at most `runs` tries: ever smaller pieces are left out, as long as it still fails.
pub fn shrink(plan: &Plan, mut runs: usize) -> Plan {
    let mut best = plan.clone();
    let mut piece = best.steps.len().div_ceil(2);
    while piece > 0 && runs > 0 {
        let (mut at, mut shorter) = (0, false);
        while at < best.steps.len() && runs > 0 {
            let mut tried = best.clone();
            let end = (at + piece).min(tried.steps.len());
            tried.steps.drain(at..end);
            runs -= 1;
            if tried.run().failure.is_some() {
                best = tried;
                shorter = true;
            } else {
                at = end;
            }
        }
        if !shorter || piece > best.steps.len() {
            piece /= 2;
        }
    }
    best
}
