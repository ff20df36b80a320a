// SPDX-License-Identifier: MIT
/*
 * Under the preload library: the name /dev/kvm and the descriptors behind it are those of a KVM
 * host.
 */
#include <dirent.h>
#include <limits.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

#include "guest.h"

extern char **environ;

static void test_name(void **state)
{
	char buf[PATH_MAX];
	struct stat st;
	struct statx sx;
	int dir;

	(void)state;
	assert_int_equal(access("/dev/kvm", F_OK), 0);
	assert_int_equal(access("/dev/kvm", R_OK | W_OK), 0);
	assert_int_equal(access("/dev/kvm", X_OK), -1);
	assert_int_equal(errno, EACCES);
	assert_int_equal(euidaccess("/dev/kvm", R_OK), 0);
	assert_int_equal(faccessat(AT_FDCWD, "/dev/kvm", W_OK, AT_EACCESS), 0);
	assert_int_equal(stat("/dev/kvm", &st), 0);
	assert_true(S_ISCHR(st.st_mode));
	assert_int_equal(st.st_rdev, makedev(10, 232));
	assert_int_equal(lstat("/dev//kvm", &st), 0);
	assert_int_equal(st.st_rdev, makedev(10, 232));
	assert_int_equal(statx(AT_FDCWD, "/dev/../dev/kvm", 0, STATX_ALL, &sx), 0);
	assert_int_equal(sx.stx_rdev_major, 10);
	assert_int_equal(sx.stx_rdev_minor, 232);
	assert_string_equal(realpath("/dev/kvm", buf), "/dev/kvm");
	assert_int_equal(readlink("/dev/kvm", buf, sizeof(buf)), -1);
	assert_int_equal(errno, EINVAL);
	dir = open("/dev", O_RDONLY | O_DIRECTORY);
	assert_true(dir >= 0);
	assert_int_equal(fstatat(dir, "kvm", &st, 0), 0);
	assert_int_equal(st.st_rdev, makedev(10, 232));
	assert_int_equal(fstatat(dir, "null", &st, 0), 0);
	assert_int_equal(st.st_rdev, makedev(1, 3));
	close(dir);
	/* Everybody may use it; that root says so is taken. */
	assert_int_equal(chown("/dev/kvm", 0, 0), geteuid() ? -1 : 0);
	assert_int_equal(chmod("/dev/../dev/kvm", 0600), geteuid() ? -1 : 0);
	assert_int_equal(stat("/dev/kvm", &st), 0);
	assert_int_equal(st.st_mode & 07777, 0666);
	assert_int_equal(mknod("/dev/kvm", S_IFCHR | 0600, makedev(10, 232)), -1);
	assert_int_equal(errno, EEXIST);
	/* Others of this name are what they are. */
	assert_int_equal(stat("/proc/kvm", &st), -1);
	assert_int_equal(errno, ENOENT);
	assert_int_equal(open("/dev/kvm2", O_RDWR), -1);
	assert_int_equal(errno, ENOENT);
}

static void check_version(int fd)
{
	assert_true(fd >= 0);
	assert_int_equal(ioctl(fd, KVM_GET_API_VERSION, 0), 12);
	assert_int_equal(close(fd), 0);
}

static void test_open(void **state)
{
	int dir = open("/dev", O_PATH), fd;
	FILE *f;

	(void)state;
	check_version(open("/dev/kvm", O_RDONLY));
	check_version(open64("/dev/kvm", O_RDWR));
	check_version(openat(AT_FDCWD, "/dev/kvm", O_RDWR));
	check_version(openat(dir, "kvm", O_RDWR));
	check_version(openat64(dir, "./kvm", O_RDWR));
	f = fopen("/dev/kvm", "r+");
	assert_non_null(f);
	fd = fileno(f);
	assert_int_equal(ioctl(fd, KVM_GET_API_VERSION, 0), 12);
	fclose(f);
	assert_int_equal(ioctl(fd, KVM_GET_API_VERSION, 0), -1);
	assert_int_equal(errno, EBADF);
	fd = open("/dev/kvm", O_RDWR);
	assert_int_equal(fcntl(fd, F_GETFD), 0);
	close(fd);
	fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	close(fd);
	assert_int_equal(open("/dev/kvm", O_RDWR | O_CREAT | O_EXCL, 0600), -1);
	assert_int_equal(errno, EEXIST);
	close(dir);
}

static void test_descriptor_stat(void **state)
{
	char name[64], link[64] = "";
	struct guest g;
	struct stat st;

	(void)state;
	guest_open(&g, code_count, sizeof(code_count));
	assert_int_equal(fstat(g.kvm, &st), 0);
	assert_true(S_ISCHR(st.st_mode));
	assert_int_equal(st.st_rdev, makedev(10, 232));
	assert_int_equal(fstat(g.vm, &st), 0);
	assert_int_equal(st.st_mode & S_IFMT, 0);
	snprintf(name, sizeof(name), "/proc/self/fd/%d", g.vm);
	assert_true(readlink(name, link, sizeof(link) - 1) > 0);
	assert_string_equal(link, "anon_inode:kvm-vm");
	guest_close(&g);
}

/* A VM lives as long as one descriptor of it, whichever it is. */
static void test_dup(void **state)
{
	struct guest g;
	int a, b, c;

	(void)state;
	guest_open(&g, code_count, sizeof(code_count));
	a = dup(g.vcpu);
	b = fcntl(g.vcpu, F_DUPFD_CLOEXEC, 100);
	assert_true(b >= 100);
	c = open("/dev/null", O_RDWR);
	assert_int_equal(dup2(g.vcpu, c), c);
	assert_int_equal(close(g.vcpu), 0);
	assert_int_equal(close(g.vm), 0);
	assert_int_equal(close(g.kvm), 0);
	g.vcpu = a;
	assert_int_equal(guest_out(&g), 1);
	assert_int_equal(close(a), 0);
	g.vcpu = b;
	assert_int_equal(guest_out(&g), 2);
	/* Something else in its place: not a vCPU any more. */
	a = open("/dev/null", O_RDWR);
	assert_int_equal(dup3(a, b, O_CLOEXEC), b);
	assert_int_equal(ioctl(b, KVM_RUN, 0), -1);
	assert_int_equal(errno, ENOTTY);
	close(a);
	close(b);
	g.vcpu = c;
	assert_int_equal(guest_out(&g), 3);
	assert_int_equal(dup2(c, c), c);
	assert_int_equal(guest_out(&g), 4);
	/* The last one ends it; the number is free for others. */
	assert_int_equal(close_range((unsigned)c, (unsigned)c, 0), 0);
	assert_int_equal(ioctl(c, KVM_RUN, 0), -1);
	assert_int_equal(errno, EBADF);
	assert_int_equal(close(c), -1);
	munmap(g.run, g.run_size);
	munmap(g.mem, MEM_SIZE);
}

static void test_two_vms(void **state)
{
	struct guest a, b;

	(void)state;
	guest_open(&a, code_count, sizeof(code_count));
	guest_open(&b, code_count, sizeof(code_count));
	for (unsigned i = 1; i < 100; i++) {
		assert_int_equal(guest_out(&a), i);
		if (i % 2)
			assert_int_equal(guest_out(&b), i / 2 + 1);
	}
	guest_close(&a);
	assert_int_equal(guest_out(&b), 51);
	guest_close(&b);
}

/* In the child, the parent's VM is not usable, as in the kernel; a VM of its own is. */
static void test_fork(void **state)
{
	struct guest g, mine;
	int status;
	pid_t pid;

	(void)state;
	guest_open(&g, code_count, sizeof(code_count));
	assert_int_equal(guest_out(&g), 1);
	pid = fork();
	if (!pid) {
		if (ioctl(g.vcpu, KVM_RUN, 0) != -1 || errno != EIO)
			_exit(1);
		if (ioctl(g.vm, KVM_CHECK_EXTENSION, KVM_CAP_USER_MEMORY) != -1 || errno != EIO)
			_exit(2);
		if (close(g.vcpu) || close(g.vm))
			_exit(3);
		if (close(g.vm) != -1 || errno != EBADF)
			_exit(4);
		if (ioctl(g.kvm, KVM_GET_API_VERSION, 0) != 12)
			_exit(5);
		guest_open(&mine, code_count, sizeof(code_count));
		for (unsigned i = 1; i < 10; i++)
			if (guest_out(&mine) != i)
				_exit(6);
		guest_close(&mine);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(guest_out(&g), 2);
	/* What a child of vfork() does with its descriptors does not concern this process. */
	pid = vfork();
	if (!pid) {
		close(g.vcpu);
		close_range(3, ~0u, 0);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(guest_out(&g), 3);
	guest_close(&g);
}

static int run_child(char *const envp[], int how)
{
	char *const argv[] = { "sh", "-c", "test -w /dev/kvm && test -c /dev/kvm", NULL };
	int status;
	pid_t pid = 0;

	if (how == 0) {
		if (posix_spawn(&pid, "/bin/sh", NULL, NULL, argv, envp))
			return -1;
	} else {
		pid = how == 1 ? vfork() : fork();
		if (!pid) {
			if (how == 1)
				execve("/bin/sh", argv, envp);
			else if (how == 2)
				execle("/bin/sh", argv[0], argv[1], argv[2], NULL, envp);
			_exit(99);
		}
	}
	if (waitpid(pid, &status, 0) != pid)
		return -1;
	return status;
}

/* Programs that are started find it too, with any environment. */
static void test_exec(void **state)
{
	char *const none[] = { NULL };
	char *const some[] = { "PATH=/usr/bin:/bin", "LD_PRELOAD=", NULL };

	(void)state;
	for (int how = 0; how < 3; how++) {
		assert_int_equal(run_child(environ, how), 0);
		assert_int_equal(run_child(none, how), 0);
		assert_int_equal(run_child(some, how), 0);
	}
	assert_int_equal(system("test -c /dev/kvm"), 0);
}

/* Descriptors that are not ours are what they were. */
static void test_others(void **state)
{
	int fd = open("/dev/zero", O_RDWR), n, p[2];
	struct stat st;
	void *m;

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(ioctl(fd, KVM_GET_API_VERSION, 0), -1);
	assert_int_equal(errno, ENOTTY);
	m = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
	assert_ptr_not_equal(m, MAP_FAILED);
	munmap(m, 4096);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_rdev, makedev(1, 5));
	assert_int_equal(close(fd), 0);
	assert_int_equal(pipe(p), 0);
	assert_int_equal(write(p[1], "abc", 3), 3);
	assert_int_equal(ioctl(p[0], FIONREAD, &n), 0);
	assert_int_equal(n, 3);
	assert_int_equal(close(p[0]), 0);
	assert_int_equal(close(p[1]), 0);
	assert_int_equal(ioctl(-1, KVM_RUN, 0), -1);
	assert_int_equal(errno, EBADF);
	assert_ptr_equal(mmap(NULL, 4096, PROT_READ, MAP_SHARED, -1, 0), MAP_FAILED);
}

/* Threads that open, copy, use and close at the same time. */
static void *churn(void *arg)
{
	(void)arg;
	for (int i = 0; i < 300; i++) {
		int kvm = open("/dev/kvm", O_RDWR), copy = dup(kvm), vm;

		if (ioctl(copy, KVM_GET_API_VERSION, 0) != 12)
			return (void *)1;
		close(kvm);
		vm = i % 10 ? -1 : ioctl(copy, KVM_CREATE_VM, 0);
		if (ioctl(copy, KVM_CHECK_EXTENSION, KVM_CAP_USER_MEMORY) != 1)
			return (void *)2;
		if (vm >= 0 && close(vm))
			return (void *)3;
		if (close(copy))
			return (void *)4;
	}
	return NULL;
}

static void test_threads(void **state)
{
	pthread_t t[4];
	void *r;

	(void)state;
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&t[i], NULL, churn, NULL), 0);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(pthread_join(t[i], &r), 0);
		assert_null(r);
	}
}

static unsigned count_descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void test_no_leak(void **state)
{
	unsigned before;
	struct guest g;

	(void)state;
	guest_open(&g, code_count, sizeof(code_count));
	guest_close(&g);
	before = count_descriptors();
	for (int i = 0; i < 20; i++) {
		guest_open(&g, code_count, sizeof(code_count));
		assert_int_equal(guest_out(&g), 1);
		guest_close(&g);
	}
	assert_int_equal(count_descriptors(), before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_name),
		cmocka_unit_test(test_open),
		cmocka_unit_test(test_descriptor_stat),
		cmocka_unit_test(test_dup),
		cmocka_unit_test(test_two_vms),
		cmocka_unit_test(test_fork),
		cmocka_unit_test(test_exec),
		cmocka_unit_test(test_others),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_no_leak),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
