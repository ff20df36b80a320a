// SPDX-License-Identifier: MIT
/* What an executable file is, by its first bytes, its program header table and its mode. */
#include "base/program.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <stdbool.h>
#include <unistd.h>

#define MAX_SCRIPTS  4 /* interpreters of interpreters, as in the kernel */
#define OUR_LOADER   "ld-linux-x86-64.so.2"
#define DEFAULT_PATH "/usr/local/bin:/usr/bin:/bin"

/* The note that Go's linker makes: its programs call the kernel by themselves, also when they use the C library. */
static bool is_go(int fd, const Elf64_Phdr *p)
{
	struct {
		Elf64_Nhdr n;
		char name[4];
	} note;

	return pread(fd, &note, sizeof(note), (off_t)p->p_offset) == sizeof(note) &&
	       note.n.n_namesz == 4 && !memcmp(note.name, "Go", 3);
}

static enum um_program kind_of_elf(int fd, const Elf64_Ehdr *e)
{
	enum um_program r = UM_PROGRAM_SUPERVISED;

	if (e->e_ident[EI_CLASS] != ELFCLASS64 || e->e_machine != EM_X86_64)
		return UM_PROGRAM_FOREIGN;
	for (unsigned i = 0; i < e->e_phnum; i++) {
		char name[PATH_MAX], *base;
		Elf64_Phdr p;
		ssize_t n;

		if (pread(fd, &p, sizeof(p), (off_t)(e->e_phoff + i * sizeof(p))) != sizeof(p))
			return UM_PROGRAM_UNKNOWN;
		if (p.p_type == PT_NOTE && is_go(fd, &p))
			return UM_PROGRAM_SUPERVISED;
		if (p.p_type != PT_INTERP)
			continue;
		n = pread(fd, name, p.p_filesz < sizeof(name) ? p.p_filesz : sizeof(name) - 1,
			  (off_t)p.p_offset);
		if (n <= 0)
			return UM_PROGRAM_UNKNOWN;
		name[n] = 0;
		base = strrchr(name, '/');
		if (!strcmp(base ? base + 1 : name, OUR_LOADER))
			r = UM_PROGRAM_DYNAMIC;
	}
	return r;
}

/* "#! interpreter argument": the argument is the rest of the line. */
static enum um_program parse_script(char *line, char *path, char *arg)
{
	char *word = line + 2 + strspn(line + 2, " \t"), *rest, *end;

	line[strcspn(line, "\n")] = 0;
	rest = word + strcspn(word, " \t");
	if (*rest)
		*rest++ = 0;
	rest += strspn(rest, " \t");
	for (end = rest + strlen(rest); end > rest && (end[-1] == ' ' || end[-1] == '\t');)
		*--end = 0;
	if (!*word)
		return UM_PROGRAM_UNKNOWN;
	strcpy(path, word);
	strcpy(arg, rest);
	return UM_PROGRAM_SCRIPT;
}

enum um_program um_program_of(char *path, char *arg)
{
	union {
		Elf64_Ehdr elf;
		char text[256]; /* as much of a script's first line as the kernel reads */
	} head = { .text = "" };
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	enum um_program r = UM_PROGRAM_UNKNOWN;
	struct stat st;
	ssize_t n;

	if (fd < 0) /* executable but not readable: the kernel knows more */
		return UM_PROGRAM_UNKNOWN;
	n = read(fd, head.text, sizeof(head.text) - 1);
	if (n >= (ssize_t)sizeof(head.elf) && !memcmp(head.elf.e_ident, ELFMAG, SELFMAG)) {
		r = kind_of_elf(fd, &head.elf);
		if ((r == UM_PROGRAM_DYNAMIC || r == UM_PROGRAM_SUPERVISED) &&
		    fstat(fd, &st) == 0 &&
		    (((st.st_mode & S_ISUID) && st.st_uid != geteuid()) ||
		     ((st.st_mode & S_ISGID) && st.st_gid != getegid())))
			r = UM_PROGRAM_PRIVILEGED;
	} else if (n > 2 && !memcmp(head.text, "#!", 2)) {
		r = parse_script(head.text, path, arg);
	}
	close(fd);
	return r;
}

enum um_program um_program_in_the_end(const char *path)
{
	char file[PATH_MAX], arg[PATH_MAX];
	enum um_program r = UM_PROGRAM_SCRIPT;

	if (snprintf(file, sizeof(file), "%s", path) >= (int)sizeof(file))
		return UM_PROGRAM_UNKNOWN;
	for (int i = 0; i <= MAX_SCRIPTS && r == UM_PROGRAM_SCRIPT; i++)
		r = um_program_of(file, arg);
	return r;
}

int um_program_find(const char *name, const char *dirs, char *path)
{
	int err = ENOENT;

	if (strchr(name, '/')) {
		if (snprintf(path, PATH_MAX, "%s", name) >= PATH_MAX)
			return ENAMETOOLONG;
		return access(path, X_OK) < 0 ? errno : 0;
	}
	for (dirs = dirs ? dirs : DEFAULT_PATH; *name;) {
		size_t len = strcspn(dirs, ":");
		struct stat st;

		if (snprintf(path, PATH_MAX, "%.*s%s%s", (int)len, dirs, len ? "/" : "", name) <
			    PATH_MAX &&
		    stat(path, &st) == 0 && S_ISREG(st.st_mode)) {
			if (access(path, X_OK) == 0)
				return 0;
			err = EACCES;
		}
		if (!dirs[len])
			break;
		dirs += len + 1;
	}
	return err;
}
