include $(sort $(wildcard $(BR2_EXTERNAL_UMBRA_PATH)/package/*/*.mk))
