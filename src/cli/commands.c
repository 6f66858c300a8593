/*
 * The table of subcommands: what each is called, does, and what its help says.
 */
#include "cli/cli_int.h"

#include <string.h>

const struct cli_command cli_commands[] = {
	{"create", "NAME [--size SIZE] [--at DIR] | VOLUME/FILESYSTEM",
		"make an encrypted volume and mount it, or a file system in one",
		"Makes a container file with a LUKS2 header, a ZFS pool inside, and mounts its file "
		"system at --at (default: NAME in your home directory). Unless --no-recovery-key is "
		"given, a recovery key is made too and shown once.\n\n"
		"The container is sparse: its used size shows how much is stored. --full fills it with "
		"ciphertext first and hides that.\n\n"
		"With a slash in the name, makes a file system in an open volume: pvol create T/docs.",
		cli_options_create, false, cli_create},
	{"open", "NAME | PATH", "unlock a volume and mount it",
		"Asks for the passphrase (or takes --key, --passphrase-file), imports the pool and "
		"mounts its file systems. PATH is a container that this user has not opened before.",
		cli_options_open, false, cli_open},
	{"close", "NAME... | --all", "unmount a volume and forget its key",
		"Unmounts, writes everything to disk and forgets the key. If a process still uses the "
		"volume, it is named and nothing changes; --force unmounts all the same, and open "
		"files then answer with errors.",
		cli_options_close, false, cli_close},
	{"restart", "NAME", "give an open volume a fresh engine",
		"Closes and reopens an open volume without asking for its key, for example after an "
		"upgrade of OpenZFS.",
		cli_options_none, false, cli_restart},
	{"list", "[VOLUME]", "list the volumes, or the file systems of one",
		"Without an operand, the known volumes; with one, the file systems of that open volume.",
		cli_options_none, true, cli_list},
	{"status", "NAME", "health, space, mounts, keys, incidents, warnings",
		"Tells all that is known of a volume, open or closed.", cli_options_none, true, cli_status},
	{"info", "PATH | NAME", "read a container's header, without its key",
		"Prints what anybody can read in the header of a container: format, cipher, key slots "
		"and their costs, and whether both copies are sound.",
		cli_options_none, true, cli_info},
	{"snapshot", "VOLUME[/FILESYSTEM][@SNAPSHOT]", "take a snapshot",
		"Takes a snapshot; without @SNAPSHOT it is named by the time. Snapshots are read in "
		".zfs/snapshot below the file system's mount point.",
		cli_options_snapshot, false, cli_snapshot},
	{"snapshots", "VOLUME", "list the snapshots of an open volume",
		"Lists snapshots in the order of their creation, with the space that only they hold.",
		cli_options_snapshots, true, cli_snapshots},
	{"rollback", "VOLUME[/FILESYSTEM]@SNAPSHOT", "return a file system to a snapshot",
		"Everything written after the snapshot is lost. Later snapshots must be destroyed with "
		"it (--destroy-later). On a terminal it asks first.",
		cli_options_rollback, false, cli_rollback},
	{"scrub", "NAME", "read and verify everything in an open volume",
		"Starts a scrub, which goes on in the background; pvol status shows its result.",
		cli_options_scrub, false, cli_scrub},
	{"key", "list|test|add|change|remove NAME", "list, test, add, change or remove keys",
		"pvol key list NAME     the key slots\n"
		"pvol key test NAME     does this key open the volume?\n"
		"pvol key add NAME      a new slot (--new-key), authorised by a key that opens the "
		"volume\n"
		"pvol key change NAME   replace the slot that the given key opens\n"
		"pvol key remove NAME --slot N\n\n"
		"NAME may be the path of a container.",
		cli_options_key, true, cli_key},
	{"header", "backup|restore NAME FILE", "save or put back a volume's header",
		"pvol header backup NAME FILE    saves header and key slots\n"
		"pvol header restore NAME FILE   puts them back into a closed volume\n\n"
		"Without its header a volume cannot be opened by anybody. Keep the backup as safe as "
		"the volume: it opens with the keys that were valid when it was made.",
		cli_options_header, false, cli_header},
	{"erase", "NAME | PATH", "destroy the keys of a closed volume for ever",
		"Overwrites, discards and re-reads the header, so that no key opens the volume any "
		"more, and says what it cannot reach: header backups, snapshots and copies of the "
		"container. The container itself stays; remove it when you like.",
		cli_options_erase, false, cli_erase},
	{"forget", "NAME", "drop a closed volume from the list, keeping its data",
		"The container is left as it is; pvol open PATH knows it again.", cli_options_none, false,
		cli_forget},
	{"doctor", "", "what this machine can do, and what is wrong",
		"Checks what pvol needs of the machine, and says how to mend what is missing. Exit "
		"code 1 if something fails.",
		cli_options_none, true, cli_doctor},
	{"zdb", "NAME [ZDB-ARGUMENT...]", "run OpenZFS's zdb on a closed volume",
		"Serves the decrypted pool of a closed volume, read-only and to you alone, while zdb "
		"runs on it. Example: pvol zdb T -bcc. Options of pvol itself come before NAME.",
		cli_options_zdb, false, cli_zdb},
	{"help", "[COMMAND]", "this overview, or the help of a command", "Prints help.", cli_options_none,
		false, cli_help},
	{"version", "", "print the version", "Prints the version of pvol.", cli_options_none, true,
		cli_version},
	{.name = NULL},
};

const struct cli_command *cli_command_find(const char *name)
{
	for (const struct cli_command *c = cli_commands; c->name; c++)
		if (!strcmp(c->name, name))
			return c;
	return NULL;
}
