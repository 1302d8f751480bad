package alga_test

const receiverDB = "TICKETWIRE_TEST_ALGA_DB"

func receive() error { return nil }
