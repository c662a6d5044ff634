SUMMARY = "Secure shadowing of thin clients: the device's agent"
DESCRIPTION = "Gives the device its identity, keeps a link to its management server, and lets operators see and operate the screen."
HOMEPAGE = "https://umbra.example.com"
BUGTRACKER = "https://umbra.example.com/issues"
SECTION = "admin"
CVE_PRODUCT = "umbra-agent"

LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57"

# The tarball that image/tarball makes, once per processor; UMBRA_TARBALLS says where they lie.
UMBRA_TARBALLS ?= "${TOPDIR}/umbra"
SRC_URI = "file://${UMBRA_TARBALLS}/umbra-agent-${PV}-${TARGET_ARCH}.tar.gz"

S = "${WORKDIR}/umbra-agent-${PV}-${TARGET_ARCH}"

inherit systemd useradd

COMPATIBLE_HOST = "(x86_64|aarch64).*-linux.*"

# One static program, stripped already.
INHIBIT_PACKAGE_STRIP = "1"
INHIBIT_PACKAGE_DEBUG_SPLIT = "1"
INHIBIT_SYSROOT_STRIP = "1"

USERADD_PACKAGES = "${PN}"
USERADD_PARAM:${PN} = "--system --no-create-home --home-dir /wfs/umbra --shell /sbin/nologin --user-group umbra"

SYSTEMD_SERVICE:${PN} = "umbra-identity.service \
                         umbra-agent.service \
                         umbra-enroll.service \
                         umbra-setup.service \
                         umbra-hands.path \
                         umbra-vnc.socket"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -d "${D}"
    "${S}/install" --root "${D}" --agent "${S}/umbra-agent" --unit-dir "${systemd_system_unitdir}"
}

FILES:${PN} += "${systemd_system_unitdir} \
                ${systemd_unitdir}/system-preset \
                ${nonarch_libdir}/sysusers.d \
                ${nonarch_libdir}/tmpfiles.d \
                ${nonarch_libdir}/umbra"

RRECOMMENDS:${PN} = "x11vnc"
