################################################################################
#
# umbra-agent
#
################################################################################

UMBRA_AGENT_VERSION = 0.1.0
UMBRA_AGENT_SITE = $(call qstrip,$(BR2_PACKAGE_UMBRA_AGENT_TARBALLS))
UMBRA_AGENT_SITE_METHOD = file
UMBRA_AGENT_SOURCE = umbra-agent-$(UMBRA_AGENT_VERSION)-$(call qstrip,$(BR2_ARCH)).tar.gz
UMBRA_AGENT_LICENSE = Apache-2.0
UMBRA_AGENT_LICENSE_FILES = LICENSE

# The tarball has one folder, with all in it.
UMBRA_AGENT_STRIP_COMPONENTS = 1

define UMBRA_AGENT_USERS
	umbra -1 umbra -1 * /wfs/umbra - - Umbra agent
endef

define UMBRA_AGENT_PERMISSIONS
	/wfs d 755 0 0 - - - - -
	/wfs/ca-certs d 755 umbra umbra - - - - -
	/wfs/umbra d 700 umbra umbra - - - - -
endef

define UMBRA_AGENT_INSTALL_TARGET_CMDS
	mkdir -p $(TARGET_DIR)/wfs/ca-certs $(TARGET_DIR)/wfs/umbra
endef

define UMBRA_AGENT_INSTALL_INIT_SYSTEMD
	$(@D)/install --root $(TARGET_DIR) --agent $(@D)/umbra-agent --init systemd
endef

define UMBRA_AGENT_INSTALL_INIT_OPENRC
	$(@D)/install --root $(TARGET_DIR) --agent $(@D)/umbra-agent --init openrc
endef

define UMBRA_AGENT_INSTALL_INIT_SYSV
	$(@D)/install --root $(TARGET_DIR) --agent $(@D)/umbra-agent --init busybox
endef

$(eval $(generic-package))
