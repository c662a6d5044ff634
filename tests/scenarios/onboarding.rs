//! A device's first contact with nobody to type: what the network says, what an administrator laid ready, and what is never believed.

mod discovery;
mod unattended;
