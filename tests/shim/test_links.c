// SPDX-License-Identifier: MIT
/*
 * Under the preload library: other ways to /dev/kvm than its name, and to its descriptors than by
 * opening it: symbolic links, links in /proc, inheritance over exec(), other processes.
 */
#include <limits.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

#include "guest.h"

static void check_system(int fd)
{
	struct stat st;
	int vm;

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_true(S_ISCHR(st.st_mode));
	assert_int_equal(st.st_rdev, makedev(10, 232));
	assert_int_equal(ioctl(fd, KVM_GET_API_VERSION, 0), 12);
	vm = ioctl(fd, KVM_CREATE_VM, 0);
	assert_true(vm >= 0);
	assert_int_equal(close(vm), 0);
	assert_int_equal(close(fd), 0);
	assert_int_equal(ioctl(fd, KVM_GET_API_VERSION, 0), -1);
	assert_int_equal(errno, EBADF);
}

static void test_symbolic_links(void **state)
{
	char dir[] = "/tmp/umbra-links-XXXXXX", name[4][64], path[PATH_MAX], target[64] = "";
	struct statx sx;
	struct stat st;
	FILE *f;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(name[0], sizeof(name[0]), "%s/machine", dir);
	snprintf(name[1], sizeof(name[1]), "%s/kvm", dir);
	snprintf(name[2], sizeof(name[2]), "%s/nowhere", dir);
	snprintf(name[3], sizeof(name[3]), "%s/loop", dir);
	assert_int_equal(symlink("/dev/kvm", name[0]), 0);
	assert_int_equal(symlink("machine", name[1]), 0); /* by the other one */
	assert_int_equal(symlink("/dev/kvm2", name[2]), 0);
	assert_int_equal(symlink("loop", name[3]), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(access(name[i], R_OK | W_OK), 0);
		assert_int_equal(faccessat(AT_FDCWD, name[i], W_OK, 0), 0);
		assert_int_equal(stat(name[i], &st), 0);
		assert_int_equal(st.st_rdev, makedev(10, 232));
		assert_int_equal(statx(AT_FDCWD, name[i], 0, STATX_ALL, &sx), 0);
		assert_int_equal(sx.stx_rdev_minor, 232);
		assert_string_equal(realpath(name[i], path), "/dev/kvm");
		check_system(open(name[i], O_RDWR));
		check_system(openat(AT_FDCWD, name[i], O_RDONLY));
		f = fopen(name[i], "r");
		assert_non_null(f);
		assert_int_equal(ioctl(fileno(f), KVM_GET_API_VERSION, 0), 12);
		fclose(f);
		/* The links themselves are links. */
		assert_int_equal(lstat(name[i], &st), 0);
		assert_true(S_ISLNK(st.st_mode));
		assert_true(readlink(name[i], target, sizeof(target) - 1) > 0);
	}
	assert_int_equal(open(name[2], O_RDWR), -1);
	assert_int_equal(errno, ENOENT);
	assert_int_equal(stat(name[2], &st), -1);
	assert_int_equal(errno, ENOENT);
	assert_int_equal(open(name[3], O_RDWR), -1);
	assert_int_equal(errno, ELOOP);
	for (int i = 0; i < 4; i++)
		unlink(name[i]);
	rmdir(dir);
}

static void test_proc_links(void **state)
{
	static const char *const forms[] = { "/proc/self/fd/%d", "/dev/fd/%d" };
	struct guest g;
	struct stat st;
	char name[64];

	(void)state;
	guest_open(&g, code_count, sizeof(code_count));
	for (unsigned i = 0; i < 2; i++) {
		snprintf(name, sizeof(name), forms[i], g.kvm);
		check_system(open(name, O_RDWR));
		assert_int_equal(stat(name, &st), 0);
		assert_true(S_ISCHR(st.st_mode));
		assert_int_equal(access(name, R_OK | W_OK), 0);
		snprintf(name, sizeof(name), forms[i], g.vm);
		assert_int_equal(open(name, O_RDWR), -1);
		assert_int_equal(errno, ENXIO);
	}
	assert_int_equal(guest_out(&g), 1);
	guest_close(&g);
}

/* Bad addresses are the kernel's to refuse. */
static void test_no_name(void **state)
{
	const char *volatile none = NULL;
	struct stat st;

	(void)state;
	assert_int_equal(open(none, O_RDWR), -1);
	assert_int_equal(errno, EFAULT);
	assert_int_equal(openat(AT_FDCWD, none, O_RDWR), -1);
	assert_int_equal(errno, EFAULT);
	assert_int_equal(access(none, F_OK), -1);
	assert_int_equal(errno, EFAULT);
	assert_int_equal(stat(none, &st), -1);
	assert_int_equal(errno, EFAULT);
	assert_int_equal(chmod(none, 0600), -1);
	assert_int_equal(errno, EFAULT);
}

static void test_flags(void **state)
{
	struct guest g;
	int fd;

	(void)state;
	guest_open(&g, code_count, sizeof(code_count));
	assert_int_equal(fcntl(g.vm, F_GETFL), O_RDWR);
	assert_int_equal(fcntl(g.vcpu, F_GETFL), O_RDWR);
	fd = open("/dev/kvm", O_RDWR | O_NONBLOCK);
	assert_int_equal(fcntl(fd, F_GETFL) & (O_ACCMODE | O_NONBLOCK), O_RDWR | O_NONBLOCK);
	assert_int_equal(close(fd), 0);
	guest_close(&g);
}

/* ---- other processes ---- */

/*
 * What the program does when it is started with numbers of descriptors: exit status 0 if they are
 * as they should be.
 */
static int child(char *const *number)
{
	int kvm = atoi(number[0]), vm = atoi(number[1]), vcpu = atoi(number[2]), own;
	struct stat st;

	if (fstat(kvm, &st) || !S_ISCHR(st.st_mode) || st.st_rdev != makedev(10, 232))
		return 1;
	if (ioctl(kvm, KVM_GET_API_VERSION, 0) != 12)
		return 2;
	own = ioctl(kvm, KVM_CREATE_VM, 0);
	if (own < 0 || close(own))
		return 3;
	/* The memory of that VM is another process's. */
	if (ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_USER_MEMORY) != -1 || errno != EIO)
		return 4;
	if (ioctl(vcpu, KVM_RUN, 0) != -1 || errno != EIO)
		return 5;
	if (close(vm) || close(vcpu) || close(kvm))
		return 6;
	if (ioctl(kvm, KVM_GET_API_VERSION, 0) != -1 || errno != EBADF)
		return 7;
	return 0;
}

static void inherit(int fd)
{
	assert_int_equal(fcntl(fd, F_SETFD, 0), 0);
}

static void test_exec(void **state)
{
	char number[3][16];
	struct guest g;
	int status;
	pid_t pid;

	(void)state;
	guest_open(&g, code_count, sizeof(code_count));
	snprintf(number[0], sizeof(number[0]), "%d", g.kvm);
	snprintf(number[1], sizeof(number[1]), "%d", g.vm);
	snprintf(number[2], sizeof(number[2]), "%d", g.vcpu);
	inherit(g.kvm);
	inherit(g.vm);
	inherit(g.vcpu);
	pid = fork();
	if (!pid) {
		execl("/proc/self/exe", "child", number[0], number[1], number[2], NULL);
		_exit(99);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(guest_out(&g), 1);
	guest_close(&g);
}

static void send_fd(int to, int fd)
{
	char data = 'x', room[CMSG_SPACE(sizeof(int))] = "";
	struct iovec io = { &data, 1 };
	struct msghdr m = {
		.msg_iov = &io, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof(room)
	};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(int));
	assert_int_equal(sendmsg(to, &m, 0), 1);
}

static int receive_fd(int from)
{
	char data, room[CMSG_SPACE(sizeof(int))] = "";
	struct iovec io = { &data, 1 };
	struct msghdr m = {
		.msg_iov = &io, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof(room)
	};
	int fd = -1;

	if (recvmsg(from, &m, 0) == 1 && CMSG_FIRSTHDR(&m))
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(int));
	return fd;
}

/* A helper that may open /dev/kvm does it for one that may not. */
static void test_socket(void **state)
{
	int s[2], status, fd;
	pid_t pid;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM, 0, s), 0);
	pid = fork();
	if (!pid) {
		fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
		send_fd(s[1], fd);
		_exit(0);
	}
	fd = receive_fd(s[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	check_system(fd);
	/* What looks similar is what it is. */
	fd = memfd_create("umbra-not", 0);
	assert_int_equal(ioctl(fd, KVM_GET_API_VERSION, 0), -1);
	assert_int_equal(errno, ENOTTY);
	close(fd);
	close(s[0]);
	close(s[1]);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_symbolic_links), cmocka_unit_test(test_proc_links),
		cmocka_unit_test(test_no_name),	       cmocka_unit_test(test_flags),
		cmocka_unit_test(test_exec),	       cmocka_unit_test(test_socket),
	};

	if (argc == 4)
		return child(argv + 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
