//! A device's first contact: what the network says, what an administrator laid ready, what a person does, and what is never believed.

mod assistant;
mod discovery;
mod doctor;
mod hostile_names;
mod identity;
mod screen;
mod terminal;
mod unattended;
mod window;
mod wrong_turns;
