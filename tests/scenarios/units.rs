//! The commands of the image's units, as another init may start them: in every order, and each one again when it fails, as its
//! unit says.

use anyhow::{Context as _, ensure};
use umbra_tests::program::{Program, product_words};
use umbra_tests::scratch::{Scratch, scenario};
use umbra_tests::units::{unit, value};
use umbra_tests::world::{Device, DeviceConfig, PATIENCE};

use crate::enrolment::{devices, keys, site};

/// A service: its command, and by which exit codes it counts as over.
struct Service {
    name: &'static str,
    words: Vec<String>,
    final_codes: Vec<i32>,
    stays: bool,
}

impl Service {
    fn read(name: &'static str) -> anyhow::Result<Self> {
        let unit = unit(&format!("umbra-{name}.service"))?;
        let command = value(&unit, "ExecStart").context("no command")?;
        let words = command.strip_prefix("/usr/bin/umbra-agent ");
        let codes = value(&unit, "RestartPreventExitStatus").unwrap_or_default();
        Ok(Self {
            name,
            words: words
                .context("another program")?
                .split(' ')
                .map(str::to_owned)
                .collect(),
            final_codes: codes
                .split_whitespace()
                .map(str::parse)
                .collect::<Result<_, _>>()?,
            stays: value(&unit, "Type") == Some("notify"),
        })
    }

    /// Starts it and waits until it is up, or over, or has failed for now.
    async fn start(&self, scratch: &Scratch, device: &Device<'_>) -> anyhow::Result<Program> {
        let words = product_words("umbra-agent")?;
        let mut command = std::process::Command::new(&words[0]);
        command.args(&words[1..]).arg("--root").arg(device.root());
        let mut program = Program::start(scratch, self.name, command.args(&self.words))?;
        if self.stays {
            device.wait_until_up().await?;
        } else {
            program.wait(PATIENCE).await?;
        }
        Ok(program)
    }

    /// Whether it wants to be started again.
    fn failed(&self, program: &mut Program) -> anyhow::Result<bool> {
        let Some(status) = program.exited() else {
            return Ok(false);
        };
        let code = status.code().context("ended by a signal")?;
        ensure!(
            !self.final_codes.contains(&code),
            "{} gave up for good with {code}: {:?}",
            self.name,
            program.lines()
        );
        Ok(code != 0)
    }
}

/// Every order of these.
fn orders(of: usize) -> Vec<Vec<usize>> {
    if of == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for shorter in orders(of - 1) {
        for at in 0..of {
            let mut longer = shorter.clone();
            longer.insert(at, of - 1);
            all.push(longer);
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn in_whatever_order_the_units_start_the_device_is_taken_on_and_linked() {
    scenario(async |scratch| {
        let (server, console) = site(scratch).await?;
        let (_, key) = keys(&console, &["--mass"]).await?.remove(0);
        let credentials = crate::onboarding::unattended::credentials(&server, &key)?.to_xml();
        let services = ["identity", "agent", "enroll", "hands"]
            .into_iter()
            .map(Service::read)
            .collect::<anyhow::Result<Vec<_>>>()?;
        let orders = orders(services.len());
        ensure!(orders.len() == 24, "{orders:?}");
        for (number, order) in orders.into_iter().enumerate() {
            let named: Vec<_> = order.iter().map(|at| services[*at].name).collect();
            let device = Device::new(
                scratch,
                &format!("device-{number}"),
                DeviceConfig::default(),
            )?;
            let laid = device.root().join("etc/umbra");
            std::fs::create_dir_all(&laid)?;
            std::fs::write(laid.join("icg.xml"), &credentials)?;
            let mut running = Vec::new();
            for at in &order {
                let program = services[*at].start(scratch, &device).await;
                running.push((*at, program.with_context(|| format!("{named:?}"))?));
            }
            // What failed since something was missing is started again until it does not.
            for (at, program) in &mut running {
                while services[*at]
                    .failed(program)
                    .with_context(|| format!("{named:?}"))?
                {
                    *program = services[*at].start(scratch, &device).await?;
                }
            }
            let online = device.wait_until_online().await;
            online.with_context(|| format!("{named:?}"))?;
        }
        // Each of them once, and none of them twice.
        let all = devices(&console).await?;
        ensure!(all.len() == 24, "{all:?}");
        Ok(())
    })
    .await;
}
