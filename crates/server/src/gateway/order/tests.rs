use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use super::*;

fn any_scope() -> impl Strategy<Value = Scope> {
    prop_oneof![
        8 => btree_set(0_u8..6, 0..4).prop_map(|keys| {
            Scope::Keys(keys.into_iter().map(|key| Blob::from(vec![key])).collect())
        }),
        1 => Just(Scope::Everything),
    ]
}

fn conflict(a: &Scope, b: &Scope) -> bool {
    match (a, b) {
        (Scope::Keys(a), Scope::Keys(b)) => a.iter().any(|key| b.contains(key)),
        _ => true,
    }
}

proptest! {
    /// At every step exactly those commands may run that no earlier
    /// unfinished command conflicts with, as far as the barrier admits.
    #[test]
    fn a_command_runs_once_no_earlier_conflicting_one_is_unfinished(
        scopes in vec(any_scope(), 1..40),
        picks in vec(any::<prop::sample::Index>(), 40),
    ) {
        let mut order = Order::default();
        for (ticket, scope) in scopes.iter().enumerate() {
            order.add(ticket as Ticket, scope.clone());
        }
        let mut unfinished: BTreeSet<Ticket> = (0..scopes.len() as Ticket).collect();
        for pick in picks {
            if unfinished.is_empty() {
                break;
            }
            let free: BTreeSet<Ticket> = unfinished
                .iter()
                .copied()
                .filter(|ticket| {
                    let scope = &scopes[*ticket as usize];
                    unfinished
                        .range(..ticket)
                        .all(|earlier| !conflict(&scopes[*earlier as usize], scope))
                })
                .collect();
            prop_assert_eq!(&order.runnable, &free);
            let ticket = *pick.get(&free.into_iter().collect::<Vec<_>>());
            order.take(ticket);
            order.finish(ticket);
            unfinished.remove(&ticket);
        }
    }

    #[test]
    fn nothing_is_left_behind(scopes in vec(any_scope(), 1..40)) {
        let mut order = Order::default();
        for (ticket, scope) in scopes.into_iter().enumerate() {
            order.add(ticket as Ticket, scope);
        }
        while let Some(ticket) = order.first_runnable() {
            order.take(ticket);
            order.finish(ticket);
        }
        prop_assert!(order.queues.is_empty());
        prop_assert!(order.enrolled.is_empty());
        prop_assert!(order.held.is_empty() && order.exclusive.is_none());
    }
}
