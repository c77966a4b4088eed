//! Names for what a machine may do, so that tests can prove that they reached all of it.

/// An enum of such names. Under test each `record` is kept by the test's thread;
/// otherwise it costs nothing.
macro_rules! transitions {
    ($(#[$meta:meta])* $vis:vis $name:ident { $($variant:ident),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        $vis enum $name {
            $($variant),+
        }

        #[cfg(test)]
        thread_local! {
            static RECORDED: std::cell::RefCell<std::collections::BTreeSet<$name>> =
                const { std::cell::RefCell::new(std::collections::BTreeSet::new()) };
        }

        impl $name {
            $vis fn record(self) {
                #[cfg(test)]
                RECORDED.with_borrow_mut(|recorded| recorded.insert(self));
            }

            /// Those that this thread has not recorded.
            #[cfg(test)]
            $vis fn not_recorded() -> Vec<Self> {
                let all = [$(Self::$variant),+];
                let recorded = RECORDED.with_borrow(|recorded| recorded.clone());
                all.into_iter().filter(|one| !recorded.contains(one)).collect()
            }
        }
    };
}

pub(super) use transitions;
