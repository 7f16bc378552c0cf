//! The tables of the lifecycle, cell by cell: what each command answers in each state, and the exact
//! record that it leaves.

mod claims;
mod purges;
mod records;
mod renewals;
mod verbs;
