//! Which network adapter lends its MAC address to the unit ID. Virtual adapters, tunnels and addresses that were made up never
//! do, nor does what can be pulled out (a dock); other adapters on USB do only where the machine has nothing of its own.

use umbra_protocol::UnitId;

/// How an adapter is attached, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bus {
    /// On the board or in a slot (PCI, virtio, the system-on-chip itself).
    Board,
    /// SDIO.
    Sdio,
    /// USB: sticks and docks, which move between machines.
    Usb,
}

/// One network adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adapter {
    /// The kernel's name, such as `eth0`.
    pub name: String,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// How it is attached; `None` for a virtual one (bridge, VPN, container).
    pub bus: Option<Bus>,
    /// Whether it is a radio.
    pub wireless: bool,
    /// Whether the address is the hardware's own, not one that somebody made up or set.
    pub permanent: bool,
}

/// The unit ID of a machine with these adapters: the MAC address, without separators, of the adapter that belongs most surely to
/// this machine. On the board before USB, wired before wireless, then the smallest address.
pub fn choose_unit_id(adapters: &[Adapter]) -> Option<UnitId> {
    adapters
        .iter()
        .filter_map(|adapter| adapter.bus.map(|bus| (bus, adapter)))
        .filter(|(_, adapter)| adapter.permanent && is_usable(&adapter.mac))
        .min_by_key(|(bus, adapter)| (*bus, adapter.wireless, adapter.mac))
        .and_then(|(_, adapter)| umbra_protocol::ids::to_hex(&adapter.mac).parse().ok())
}

/// Not all zeros, not a group address.
fn is_usable(mac: &[u8; 6]) -> bool {
    *mac != [0; 6] && mac[0] & 1 == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(name: &str, last: u8, bus: Option<Bus>, wireless: bool) -> Adapter {
        Adapter {
            name: name.into(),
            mac: [0x00, 0xe0, 0xc5, 0, 0, last],
            bus,
            wireless,
            permanent: true,
        }
    }

    fn chosen(adapters: &[Adapter]) -> Option<String> {
        choose_unit_id(adapters).map(|id| id.to_string())
    }

    #[test]
    fn a_wired_adapter_on_the_board_goes_before_radio_and_dock() {
        let adapters = [
            adapter("usb0", 1, Some(Bus::Usb), false),
            adapter("wlan0", 2, Some(Bus::Board), true),
            adapter("eth1", 4, Some(Bus::Board), false),
            adapter("eth0", 3, Some(Bus::Board), false),
        ];
        assert_eq!(chosen(&adapters).as_deref(), Some("00E0C5000003"));
        assert_eq!(chosen(&adapters[..2]).as_deref(), Some("00E0C5000002"));
        assert_eq!(chosen(&adapters[..1]).as_deref(), Some("00E0C5000001"));
    }

    #[test]
    fn virtual_adapters_and_made_up_addresses_never_name_a_machine() {
        let made_up = Adapter {
            permanent: false,
            ..adapter("wlan0", 1, Some(Bus::Board), true)
        };
        let zero = Adapter {
            mac: [0; 6],
            ..adapter("eth0", 0, Some(Bus::Board), false)
        };
        let group = Adapter {
            mac: [1, 0, 0, 0, 0, 1],
            ..adapter("eth1", 0, Some(Bus::Board), false)
        };
        assert_eq!(
            chosen(&[adapter("tun0", 1, None, false), made_up, zero, group]),
            None
        );
        assert_eq!(chosen(&[]), None);
    }
}
