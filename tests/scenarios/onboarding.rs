//! A device's first contact: what the network says, what an administrator laid ready, what a person does, and what is never believed.

mod assistant;
mod discovery;
mod terminal;
mod unattended;
