// SPDX-License-Identifier: MIT
/* Virtio devices behind PCI, used by a well-behaved driver and by hostile ones. */
#include "virtio_driver.h"

#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <signal.h>
#include <sys/resource.h>

#include "vmm/terminal.h"
#include "vmm/virtio_blk.h"
#include "vmm/virtio_console.h"
#include "vmm/virtio_pci.h"
#include "vmm/virtio_rng.h"

#define MEM	     (8ull << 20)
#define SECTORS	     2048u
#define DISK_SIZE    (SECTORS * 512)
#define ALL	     (~0ull)
#define NO_EVENT_IDX (~(1ull << VIRTIO_RING_F_EVENT_IDX))
#define HEADER	     BUFFERS_GPA
#define STATUS	     (BUFFERS_GPA + 0x100)
#define DATA	     (BUFFERS_GPA + 0x1000)

struct env {
	struct mock_board board;
	struct memory mem;
	struct pci_host *pci;
	struct loop_thread loop;
	struct driver d;
	struct virtio_pci *transport;

	char *path;
	struct virtio_blk *blk;
	struct virtio_rng *rng;
	int in[2], out[2];
	struct terminal *term;
	struct virtio_console *console;
};

static struct env *env_new(void)
{
	struct env *e = calloc(1, sizeof(*e));

	mock_board_init(&e->board);
	assert_int_equal(mem_init(&e->mem, MEM), 0);
	e->pci = pci_host_new(&e->board.board);
	e->d = (struct driver){ .board = &e->board, .pci = e->pci, .mem = &e->mem };
	return e;
}

static void plug(struct env *e, struct virtio *v)
{
	e->transport = virtio_pci_new(v, e->pci, &e->board.board);
	assert_non_null(e->transport);
	drv_probe(&e->d, 1);
}

static int blk_setup_mode(void **state, bool ro)
{
	struct env *e = env_new();
	u8 *image = malloc(DISK_SIZE);

	for (unsigned i = 0; i < DISK_SIZE; i++)
		image[i] = (u8)(i / 512);
	e->path = temp_file(image, DISK_SIZE);
	free(image);
	e->blk = virtio_blk_new(e->path, ro, 3, &e->mem);
	assert_non_null(e->blk);
	plug(e, virtio_blk_device(e->blk));
	*state = e;
	return 0;
}

static int blk_setup(void **state)
{
	return blk_setup_mode(state, false);
}

static int blk_setup_ro(void **state)
{
	return blk_setup_mode(state, true);
}

static int rng_setup(void **state)
{
	struct env *e = env_new();

	e->rng = virtio_rng_new(&e->mem);
	plug(e, virtio_rng_device(e->rng));
	*state = e;
	return 0;
}

static int console_setup(void **state)
{
	struct env *e = env_new();

	assert_int_equal(pipe(e->in) | pipe(e->out), 0);
	assert_int_equal(loop_init(&e->loop.loop), 0);
	e->term = term_new(e->in[0], e->out[1], &e->loop.loop, &e->board.board);
	e->console = virtio_console_new(e->term, &e->mem);
	term_on_input(e->term, virtio_console_input, e->console);
	plug(e, virtio_console_device(e->console));
	term_start(e->term);
	loop_thread_start(&e->loop);
	*state = e;
	return 0;
}

static int teardown(void **state)
{
	struct env *e = *state;

	virtio_blk_free(e->blk);
	virtio_rng_free(e->rng);
	if (e->term) {
		loop_thread_stop(&e->loop);
		term_close(e->term);
		loop_fini(&e->loop.loop);
		for (unsigned i = 0; i < 2; i++) {
			close(e->in[i]);
			close(e->out[i]);
		}
	}
	virtio_console_free(e->console);
	virtio_pci_free(e->transport);
	pci_host_free(e->pci);
	mem_fini(&e->mem);
	if (e->path)
		unlink(e->path);
	free(e->path);
	free(e);
	return 0;
}

static u8 *gpa(struct env *e, u64 at)
{
	return mem_hva(&e->mem, at, 1);
}

static void put_header(struct env *e, u32 type, u64 sector)
{
	struct virtio_blk_outhdr h = { .type = type, .sector = sector };

	memcpy(gpa(e, HEADER), &h, sizeof(h));
	*gpa(e, STATUS) = 0xee;
}

/* One request with a data buffer (if len): its status; *@used is the length in the used ring. */
static u8 request(struct env *e, u32 type, u64 sector, u32 len, bool in, u32 *used)
{
	struct buffer b[3] = { { HEADER, 16, false }, { DATA, len, in }, { STATUS, 1, true } };
	u32 n;

	put_header(e, type, sector);
	if (!len)
		b[1] = b[2];
	drv_submit(&e->d, 0, 0, b, len ? 3 : 2);
	n = drv_wait(&e->d, 0, NULL);
	if (used)
		*used = n;
	return *gpa(e, STATUS);
}

static void read_file(struct env *e, u64 offset, void *buf, size_t len)
{
	int fd = open(e->path, O_RDONLY);

	assert_int_equal(pread(fd, buf, len, (off_t)offset), (ssize_t)len);
	close(fd);
}

static void test_blk_config(void **state)
{
	struct env *e = *state;

	assert_int_equal(drv_conf(&e->d, 0), 0x10421af4);
	assert_int_equal(drv_read(&e->d, e->d.device, 8), SECTORS);
	assert_int_equal(drv_read(&e->d, e->d.device + 12, 4), 254);
	assert_int_equal(drv_read(&e->d, e->d.device + 20, 4), 512);
	assert_int_equal(drv_read(&e->d, e->d.device + 0xff8, 8), 0);
	/* A second VM cannot write to the same disk, nor read what we write. */
	assert_null(virtio_blk_new(e->path, false, 0, &e->mem));
	assert_null(virtio_blk_new(e->path, true, 0, &e->mem));
	assert_null(virtio_blk_new("/nonexistent", false, 0, &e->mem));
	assert_null(virtio_blk_new("/dev/null", false, 0, &e->mem));
}

static void test_blk_io(void **state)
{
	struct env *e = *state;
	u8 buf[1024];
	u32 used;

	drv_start(&e->d, ALL, 1, true);
	assert_int_equal(request(e, VIRTIO_BLK_T_IN, 5, 1024, true, &used), VIRTIO_BLK_S_OK);
	assert_int_equal(used, 1025);
	assert_int_equal(*gpa(e, DATA), 5);
	assert_int_equal(*gpa(e, DATA + 1023), 6);
	wait_until(mock_msis(&e->board) == 1);
	assert_int_equal(e->board.msi_data, 0x41);
	assert_int_equal(e->board.msi_addr, 0xfee00000);

	memset(gpa(e, DATA), 0xab, 1024);
	assert_int_equal(request(e, VIRTIO_BLK_T_OUT, 100, 1024, false, &used), VIRTIO_BLK_S_OK);
	assert_int_equal(used, 1);
	assert_int_equal(request(e, VIRTIO_BLK_T_FLUSH, 0, 0, false, NULL), VIRTIO_BLK_S_OK);
	read_file(e, 100 * 512, buf, 1024);
	assert_true(buf[0] == 0xab && buf[1023] == 0xab);
	read_file(e, 102 * 512, buf, 1);
	assert_int_equal(buf[0], 102);

	assert_int_equal(request(e, VIRTIO_BLK_T_GET_ID, 0, 20, true, NULL), VIRTIO_BLK_S_OK);
	assert_string_equal((char *)gpa(e, DATA), "umbra-disk-3");
	assert_int_equal(request(e, 77, 0, 0, false, NULL), VIRTIO_BLK_S_UNSUPP);
}

static void test_blk_errors(void **state)
{
	struct env *e = *state;

	drv_start(&e->d, ALL, 1, true);
	/* Behind the end, across the end, far away, no whole sectors. */
	assert_int_equal(request(e, VIRTIO_BLK_T_IN, SECTORS, 512, true, NULL), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(e, VIRTIO_BLK_T_IN, SECTORS - 1, 1024, true, NULL),
			 VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(e, VIRTIO_BLK_T_OUT, ~0ull, 512, false, NULL), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(e, VIRTIO_BLK_T_OUT, ~0ull / 512, 512, false, NULL),
			 VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(e, VIRTIO_BLK_T_IN, 0, 100, true, NULL), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(e, VIRTIO_BLK_T_GET_ID, 0, 10, true, NULL), VIRTIO_BLK_S_IOERR);
	/* The file shrinks under us. */
	assert_int_equal(truncate(e->path, 512 * 10), 0);
	assert_int_equal(request(e, VIRTIO_BLK_T_IN, 9, 1024, true, NULL), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(e, VIRTIO_BLK_T_IN, 9, 512, true, NULL), VIRTIO_BLK_S_OK);
	assert_int_equal(drv_status(&e->d), 0x0f);
}

/* A disk that cannot grow: the limit on file sizes stands for a full file system. */
static void test_blk_full(void **state)
{
	struct env *e = *state;
	struct rlimit old, limit;

	drv_start(&e->d, ALL, 1, true);
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &old);
	limit = old;
	limit.rlim_cur = 512 * 20;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	assert_int_equal(request(e, VIRTIO_BLK_T_OUT, 30, 512, false, NULL), VIRTIO_BLK_S_IOERR);
	/* Half of it fits. */
	assert_int_equal(request(e, VIRTIO_BLK_T_OUT, 19, 1024, false, NULL), VIRTIO_BLK_S_IOERR);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_int_equal(request(e, VIRTIO_BLK_T_OUT, 30, 512, false, NULL), VIRTIO_BLK_S_OK);
}

static u8 wipe(struct env *e, u32 type, u64 sector, u32 sectors, u32 flags)
{
	struct virtio_blk_discard_write_zeroes r = { sector, sectors, flags };

	memcpy(gpa(e, DATA), &r, sizeof(r));
	return request(e, type, 0, sizeof(r), false, NULL);
}

static void test_blk_wipe(void **state)
{
	struct env *e = *state;
	u8 buf[512 * 8];

	drv_start(&e->d, ALL, 1, true);
	assert_int_equal(wipe(e, VIRTIO_BLK_T_WRITE_ZEROES, 100, 4, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(wipe(e, VIRTIO_BLK_T_WRITE_ZEROES, 104, 3, 1), VIRTIO_BLK_S_OK);
	read_file(e, 100 * 512, buf, sizeof(buf));
	for (unsigned i = 0; i < 7 * 512; i++)
		assert_int_equal(buf[i], 0);
	assert_int_equal(buf[7 * 512], 107);
	assert_int_equal(wipe(e, VIRTIO_BLK_T_DISCARD, 200, 8, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(wipe(e, VIRTIO_BLK_T_DISCARD, 200, 8, 1), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(wipe(e, VIRTIO_BLK_T_WRITE_ZEROES, 0, 1, 2), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(wipe(e, VIRTIO_BLK_T_WRITE_ZEROES, SECTORS - 1, 2, 0), VIRTIO_BLK_S_IOERR);
	assert_int_equal(wipe(e, VIRTIO_BLK_T_DISCARD, ~0ull, ~0u, 0), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(e, VIRTIO_BLK_T_DISCARD, 0, 0, false, NULL), VIRTIO_BLK_S_IOERR);
	/* The disk keeps its size. */
	assert_int_equal(wipe(e, VIRTIO_BLK_T_DISCARD, SECTORS - 8, 8, 0), VIRTIO_BLK_S_OK);
	read_file(e, (SECTORS - 8) * 512, buf, sizeof(buf));
}

static void test_blk_read_only(void **state)
{
	struct env *e = *state;
	u8 byte;

	drv_start(&e->d, ALL, 1, true);
	drv_write(&e->d, e->d.common + VIRTIO_PCI_COMMON_DFSELECT, 0, 4);
	assert_true(drv_read(&e->d, e->d.common + VIRTIO_PCI_COMMON_DF, 4) & 1u << VIRTIO_BLK_F_RO);
	assert_int_equal(request(e, VIRTIO_BLK_T_OUT, 5, 512, false, NULL), VIRTIO_BLK_S_IOERR);
	assert_int_equal(wipe(e, VIRTIO_BLK_T_WRITE_ZEROES, 5, 1, 0), VIRTIO_BLK_S_IOERR);
	assert_int_equal(wipe(e, VIRTIO_BLK_T_DISCARD, 5, 1, 0), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(e, VIRTIO_BLK_T_IN, 5, 512, true, NULL), VIRTIO_BLK_S_OK);
	read_file(e, 5 * 512, &byte, 1);
	assert_int_equal(byte, 5);
}

/* Buffers cut anywhere: a header in pieces, data in odd pieces, the status at the end of data. */
static void test_blk_layouts(void **state)
{
	struct env *e = *state;
	struct buffer b[] = {
		{ HEADER, 3, false },  { HEADER + 3, 13, false }, { DATA, 1, true },
		{ DATA + 1, 0, true }, { DATA + 1, 700, true },	  { DATA + 701, 324, true },
	};

	drv_start(&e->d, ALL, 1, true);
	put_header(e, VIRTIO_BLK_T_IN, 9);
	memset(gpa(e, DATA), 0xee, 1025);
	drv_submit(&e->d, 0, 0, b, 6);
	assert_int_equal(drv_wait(&e->d, 0, NULL), 1025);
	assert_int_equal(*gpa(e, DATA), 9);
	assert_int_equal(*gpa(e, DATA + 511), 9);
	assert_int_equal(*gpa(e, DATA + 1023), 10);
	assert_int_equal(*gpa(e, DATA + 1024), VIRTIO_BLK_S_OK);
}

static void test_indirect(void **state)
{
	struct env *e = *state;
	struct vring_desc *table = (void *)gpa(e, BUFFERS_GPA + 0x8000);
	struct vring_desc *desc;

	drv_start(&e->d, ALL, 1, true);
	desc = drv_desc(&e->d, 0);
	put_header(e, VIRTIO_BLK_T_IN, 7);
	table[0] = (struct vring_desc){ HEADER, 16, VRING_DESC_F_NEXT, 1 };
	table[1] = (struct vring_desc){ DATA, 512, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 2 };
	table[2] = (struct vring_desc){ STATUS, 1, VRING_DESC_F_WRITE, 0 };
	desc[4] = (struct vring_desc){ BUFFERS_GPA + 0x8000, 48, VRING_DESC_F_INDIRECT, 0 };
	drv_avail(&e->d, 0)->ring[0] = 4;
	drv_avail(&e->d, 0)->idx = e->d.avail_idx[0] = 1;
	drv_kick(&e->d, 0);
	assert_int_equal(drv_wait(&e->d, 0, NULL), 513);
	assert_int_equal(*gpa(e, STATUS), VIRTIO_BLK_S_OK);
	assert_int_equal(*gpa(e, DATA), 7);
}

/* Many requests at a time: all come back, in order. */
static void test_batch(void **state)
{
	struct env *e = *state;

	drv_start(&e->d, ALL, 1, true);
	put_header(e, VIRTIO_BLK_T_FLUSH, 0);
	for (unsigned round = 0; round < 20; round++) {
		for (unsigned i = 0; i < QUEUE_SIZE / 2; i++) {
			struct buffer b[2] = { { HEADER, 16, false }, { STATUS + i, 1, true } };

			drv_submit(&e->d, 0, 2 * i, b, 2);
		}
		for (unsigned i = 0; i < QUEUE_SIZE / 2; i++) {
			u32 head;

			drv_wait(&e->d, 0, &head);
			assert_int_equal(head, 2 * i);
		}
	}
}

static void test_event_idx(void **state)
{
	struct env *e = *state;
	unsigned before;

	drv_start(&e->d, ALL, 1, true);
	/* "Interrupt me when entry 2 is used": two requests are silent. */
	drv_avail(&e->d, 0)->ring[QUEUE_SIZE] = 2;
	request(e, VIRTIO_BLK_T_FLUSH, 0, 0, false, NULL);
	request(e, VIRTIO_BLK_T_FLUSH, 0, 0, false, NULL);
	before = mock_msis(&e->board);
	assert_int_equal(before, 0);
	request(e, VIRTIO_BLK_T_FLUSH, 0, 0, false, NULL);
	wait_until(mock_msis(&e->board) == 1);
	/* The device asks to be notified of the next entry. */
	wait_until(*(volatile u16 *)&drv_used(&e->d, 0)->ring[QUEUE_SIZE] == 3);
}

static void test_no_interrupt_flag(void **state)
{
	struct env *e = *state;

	drv_start(&e->d, ALL & NO_EVENT_IDX, 1, true);
	drv_avail(&e->d, 0)->flags = VRING_AVAIL_F_NO_INTERRUPT;
	request(e, VIRTIO_BLK_T_FLUSH, 0, 0, false, NULL);
	request(e, VIRTIO_BLK_T_FLUSH, 0, 0, false, NULL);
	assert_int_equal(mock_msis(&e->board), 0);
	drv_avail(&e->d, 0)->flags = 0;
	request(e, VIRTIO_BLK_T_FLUSH, 0, 0, false, NULL);
	wait_until(mock_msis(&e->board) == 1);
}

static void test_intx(void **state)
{
	struct env *e = *state;
	unsigned gsi = pci_line_gsi[1];

	drv_start(&e->d, ALL & NO_EVENT_IDX, 1, false);
	request(e, VIRTIO_BLK_T_FLUSH, 0, 0, false, NULL);
	wait_until(mock_rises(&e->board, gsi) == 1);
	assert_int_equal(mock_msis(&e->board), 0);
	/* Reading ISR acknowledges. */
	assert_int_equal(drv_read(&e->d, e->d.isr, 1), 1);
	assert_false(e->board.line[gsi]);
	assert_int_equal(drv_read(&e->d, e->d.isr, 1), 0);
	/* A reset, too, takes the line down. */
	request(e, VIRTIO_BLK_T_FLUSH, 0, 0, false, NULL);
	wait_until(mock_rises(&e->board, gsi) == 2);
	drv_write(&e->d, e->d.common + VIRTIO_PCI_COMMON_STATUS, 0, 1);
	assert_false(e->board.line[gsi]);
}

static void test_msix_mask(void **state)
{
	struct env *e = *state;

	drv_start(&e->d, ALL & NO_EVENT_IDX, 1, true);
	drv_write(&e->d, e->d.msix + 16 + 12, 1, 4);
	request(e, VIRTIO_BLK_T_FLUSH, 0, 0, false, NULL);
	wait_until(drv_read(&e->d, e->d.msix + 0x800, 8) == 2);
	assert_int_equal(mock_msis(&e->board), 0);
	drv_write(&e->d, e->d.msix + 16 + 12, 0, 4);
	assert_int_equal(mock_msis(&e->board), 1);
	assert_int_equal(drv_read(&e->d, e->d.msix + 0x800, 8), 0);
	/* A vector that does not exist. */
	drv_write(&e->d, e->d.common + VIRTIO_PCI_COMMON_Q_SELECT, 0, 2);
	drv_write(&e->d, e->d.common + VIRTIO_PCI_COMMON_Q_MSIX, 2, 2);
	assert_int_equal(drv_read(&e->d, e->d.common + VIRTIO_PCI_COMMON_Q_MSIX, 2), 0xffff);
}

static void test_features(void **state)
{
	struct env *e = *state;
	u64 status = e->d.common + VIRTIO_PCI_COMMON_STATUS;

	/* Without VERSION_1, or with what was not offered: FEATURES_OK does not stick. */
	for (unsigned i = 0; i < 2; i++) {
		drv_write(&e->d, status, 0, 1);
		drv_write(&e->d, status, 3, 1);
		drv_write(&e->d, e->d.common + VIRTIO_PCI_COMMON_GFSELECT, 1, 4);
		drv_write(&e->d, e->d.common + VIRTIO_PCI_COMMON_GF, i ? 0x80000001 : 0, 4);
		drv_write(&e->d, status, 0x0b, 1);
		assert_int_equal(drv_status(&e->d), 3);
	}
	/* A queue that does not exist reads as 0. */
	drv_write(&e->d, e->d.common + VIRTIO_PCI_COMMON_Q_SELECT, 1, 2);
	assert_int_equal(drv_read(&e->d, e->d.common + VIRTIO_PCI_COMMON_Q_SIZE, 2), 0);
	assert_int_equal(drv_read(&e->d, e->d.common + VIRTIO_PCI_COMMON_NUMQ, 2), 1);
	/* The window in configuration space: read the capacity through it. */
	for (u8 at = (u8)drv_conf(&e->d, 0x34); at;) {
		u32 head = drv_conf(&e->d, at);

		if ((head & 0xff) == 9 && head >> 24 == VIRTIO_PCI_CAP_PCI_CFG) {
			drv_set_conf(&e->d, at + 4, 0);
			drv_set_conf(&e->d, at + 8, (u32)(e->d.device - e->d.common));
			drv_set_conf(&e->d, at + 12, 4);
			assert_int_equal(drv_conf(&e->d, at + 16), SECTORS);
			/* A BAR that does not exist. */
			drv_set_conf(&e->d, at + 4, 5);
			drv_conf(&e->d, at + 16);
		}
		at = (head >> 8) & 0xff;
	}
}

/* A broken ring: the device needs a reset, tells so, does nothing more, and recovers. */
static void expect_broken(struct env *e)
{
	wait_until(drv_status(&e->d) & VIRTIO_CONFIG_S_NEEDS_RESET);
	assert_int_equal(e->board.msi_data, 0x40);
	drv_start(&e->d, ALL, 1, true);
	assert_int_equal(request(e, VIRTIO_BLK_T_IN, 1, 512, true, NULL), VIRTIO_BLK_S_OK);
}

static void submit_raw(struct env *e, u16 head)
{
	drv_avail(&e->d, 0)->ring[e->d.avail_idx[0] % QUEUE_SIZE] = head;
	drv_avail(&e->d, 0)->idx = e->d.avail_idx[0] + 1;
	drv_kick(&e->d, 0);
	expect_broken(e);
}

static void test_broken_rings(void **state)
{
	struct env *e = *state;
	struct vring_desc *desc;

	drv_start(&e->d, ALL, 1, true);
	desc = drv_desc(&e->d, 0);
	/* A loop. */
	desc[0] = (struct vring_desc){ HEADER, 16, VRING_DESC_F_NEXT, 1 };
	desc[1] = (struct vring_desc){ HEADER, 16, VRING_DESC_F_NEXT, 0 };
	submit_raw(e, 0);
	/* A head, and a next, that do not exist. */
	submit_raw(e, QUEUE_SIZE);
	desc[0] = (struct vring_desc){ HEADER, 16, VRING_DESC_F_NEXT, QUEUE_SIZE };
	submit_raw(e, 0);
	/* Addresses that are no RAM, and a length that leaves it. */
	desc[0] = (struct vring_desc){ ~0ull, 16, 0, 0 };
	submit_raw(e, 0);
	desc[0] = (struct vring_desc){ 0xfee00000, 16, 0, 0 };
	submit_raw(e, 0);
	desc[0] = (struct vring_desc){ HEADER, 0xffffffff, 0, 0 };
	submit_raw(e, 0);
	/* Readable behind writable. */
	desc[0] = (struct vring_desc){ STATUS, 1, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 1 };
	desc[1] = (struct vring_desc){ HEADER, 16, 0, 0 };
	submit_raw(e, 0);
	/* No room for a status; no whole header. */
	desc[0] = (struct vring_desc){ HEADER, 16, 0, 0 };
	submit_raw(e, 0);
	desc[0] = (struct vring_desc){ HEADER, 15, VRING_DESC_F_NEXT, 1 };
	desc[1] = (struct vring_desc){ STATUS, 1, VRING_DESC_F_WRITE, 0 };
	submit_raw(e, 0);
	/* Indirect tables: no whole entries, empty, with a next, within another, looping. */
	desc[0] = (struct vring_desc){ DATA, 17, VRING_DESC_F_INDIRECT, 0 };
	submit_raw(e, 0);
	desc[0] = (struct vring_desc){ DATA, 0, VRING_DESC_F_INDIRECT, 0 };
	submit_raw(e, 0);
	desc[0] = (struct vring_desc){ DATA, 16, VRING_DESC_F_INDIRECT | VRING_DESC_F_NEXT, 1 };
	submit_raw(e, 0);
	*(struct vring_desc *)gpa(e, DATA) =
		(struct vring_desc){ DATA, 16, VRING_DESC_F_INDIRECT, 0 };
	desc[0] = (struct vring_desc){ DATA, 16, VRING_DESC_F_INDIRECT, 0 };
	submit_raw(e, 0);
	*(struct vring_desc *)gpa(e, DATA) = (struct vring_desc){ HEADER, 1, VRING_DESC_F_NEXT, 0 };
	desc[0] = (struct vring_desc){ DATA, 1 << 20, VRING_DESC_F_INDIRECT, 0 };
	submit_raw(e, 0);
	/* More chains than the queue has entries. */
	drv_avail(&e->d, 0)->idx = e->d.avail_idx[0] + QUEUE_SIZE + 1;
	drv_kick(&e->d, 0);
	expect_broken(e);
	/* A queue that is not in RAM, or not aligned. */
	for (unsigned i = 0; i < 2; i++) {
		drv_write(&e->d, e->d.common + VIRTIO_PCI_COMMON_STATUS, 0, 1);
		drv_write(&e->d, e->d.common + VIRTIO_PCI_COMMON_Q_DESCLO, i ? 0x100008 : MEM - 16,
			  4);
		drv_write(&e->d, e->d.common + VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
		assert_int_equal(drv_status(&e->d), VIRTIO_CONFIG_S_NEEDS_RESET);
		assert_int_equal(drv_read(&e->d, e->d.common + VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
	}
	/* Notifications of a device that is not set up, and of queues that do not exist. */
	drv_write(&e->d, e->d.common + VIRTIO_PCI_COMMON_STATUS, 0, 1);
	drv_kick(&e->d, 0);
	drv_kick(&e->d, 1);
	drv_kick(&e->d, 900);
	drv_start(&e->d, ALL, 1, true);
	assert_int_equal(request(e, VIRTIO_BLK_T_IN, 1, 512, true, NULL), VIRTIO_BLK_S_OK);
}

/* Reset while requests are under way: afterwards nothing touches memory. */
static void test_reset_in_flight(void **state)
{
	struct env *e = *state;

	for (unsigned n = 0; n < 200; n++) {
		struct buffer b[3] = { { HEADER, 16, false },
				       { DATA, 0x80000, true },
				       { STATUS, 1, true } };

		drv_start(&e->d, ALL, 1, true);
		put_header(e, VIRTIO_BLK_T_IN, 0);
		drv_submit(&e->d, 0, 0, b, 3);
		usleep((unsigned)n % 7 * 50);
		drv_write(&e->d, e->d.common + VIRTIO_PCI_COMMON_STATUS, 0, 1);
		memset(gpa(e, DATA), 0x5a, 0x80000);
		memset(drv_used(&e->d, 0), 0x5a, 64);
		usleep(100);
		assert_int_equal(*gpa(e, DATA + 0x7ffff), 0x5a);
		assert_int_equal(drv_used(&e->d, 0)->idx, 0x5a5a);
	}
}

/* Random writes to everything the guest can write to. */
static void fuzz(struct env *e, unsigned nqueues, unsigned rounds)
{
	srand(5);
	for (unsigned n = 0; n < rounds; n++) {
		drv_start(&e->d, (u64)rand() << 32 | (unsigned)rand(), nqueues, rand() & 1);
		for (unsigned q = 0; q < nqueues; q++) {
			struct vring_desc *desc = drv_desc(&e->d, q);

			for (unsigned i = 0; i < QUEUE_SIZE; i++) {
				desc[i].addr = rand() % 8 ? (u64)rand() % MEM : (u64)rand() << 20;
				desc[i].len = rand() % 8 ? (u32)rand() % 5000 : (u32)rand();
				desc[i].flags = (u16)(rand() & 7);
				desc[i].next = (u16)(rand() % (QUEUE_SIZE + 1));
				drv_avail(&e->d, q)->ring[i] = (u16)(rand() % (QUEUE_SIZE + 1));
			}
			drv_avail(&e->d, q)->idx = (u16)(rand() % (QUEUE_SIZE + 2));
			drv_kick(&e->d, q);
		}
		for (unsigned i = 0; i < 20; i++) {
			u64 at = e->d.common + (u64)rand() % 0x5000;

			drv_write(&e->d, at, (u64)rand() << 32 | (unsigned)rand(),
				  1u << rand() % 4);
			drv_read(&e->d, at, 1u << rand() % 4);
			out32(pci_conf_io, e->pci, 0, 0x80000800u | ((unsigned)rand() & 0xfc));
			in32(pci_conf_io, e->pci, 4);
		}
		out32(pci_conf_io, e->pci, 0, 0x80000800u | (0x40 + ((unsigned)rand() & 0x7c)));
		out32(pci_conf_io, e->pci, 4, (u32)rand());
	}
	drv_write(&e->d, e->d.common + VIRTIO_PCI_COMMON_STATUS, 0, 1);
}

static void test_blk_fuzz(void **state)
{
	fuzz(*state, 1, 2000);
}

static void test_rng(void **state)
{
	struct env *e = *state;
	struct buffer b = { DATA, 64, true };
	unsigned zeroes = 0;

	drv_start(&e->d, ALL, 1, true);
	memset(gpa(e, DATA), 0, 8192);
	drv_submit(&e->d, 0, 0, &b, 1);
	assert_int_equal(drv_wait(&e->d, 0, NULL), 64);
	for (unsigned i = 0; i < 64; i++)
		zeroes += !*gpa(e, DATA + i);
	assert_true(zeroes < 16);
	assert_int_equal(*gpa(e, DATA + 64), 0);
	/* A part of a large request is enough. */
	b.len = 100000;
	drv_submit(&e->d, 0, 0, &b, 1);
	assert_in_range(drv_wait(&e->d, 0, NULL), 1, 100000);
	/* A readable buffer is a mistake. */
	b.in = false;
	drv_submit(&e->d, 0, 0, &b, 1);
	assert_true(drv_status(&e->d) & VIRTIO_CONFIG_S_NEEDS_RESET);
	fuzz(e, 1, 500);
}

static void test_console(void **state)
{
	struct env *e = *state;
	struct buffer rx = { DATA, 4, true },
		      tx[2] = { { DATA + 0x100, 3, false }, { DATA + 0x200, 2, false } };
	char buf[16] = "";
	ssize_t got;

	/* Input that comes before the driver waits. */
	assert_int_equal(write(e->in[1], "abcdef", 6), 6);
	wait_until(term_avail(e->term) == 6);
	drv_start(&e->d, ALL, 2, true);
	drv_submit(&e->d, 0, 0, &rx, 1);
	assert_int_equal(drv_wait(&e->d, 0, NULL), 4);
	assert_memory_equal(gpa(e, DATA), "abcd", 4);
	drv_submit(&e->d, 0, 1, &rx, 1);
	assert_int_equal(drv_wait(&e->d, 0, NULL), 2);
	assert_memory_equal(gpa(e, DATA), "ef", 2);
	/* Buffers that wait for input. */
	drv_submit(&e->d, 0, 2, &rx, 1);
	assert_int_equal(write(e->in[1], "g", 1), 1);
	assert_int_equal(drv_wait(&e->d, 0, NULL), 1);
	assert_int_equal(*gpa(e, DATA), 'g');

	memcpy(gpa(e, DATA + 0x100), "out", 3);
	memcpy(gpa(e, DATA + 0x200), "pu", 2);
	drv_submit(&e->d, 1, 0, tx, 2);
	assert_int_equal(drv_wait(&e->d, 1, NULL), 0);
	/* The emergency write needs no queue. */
	drv_write(&e->d, e->d.device + 8, 't', 4);
	for (size_t n = 0; n < 6; n += (size_t)got) {
		got = read(e->out[0], buf + n, 6 - n);
		assert_true(got > 0);
	}
	assert_string_equal(buf, "output");
}

static void *drain(void *arg)
{
	char buf[4096];

	while (read(*(int *)arg, buf, sizeof(buf)) > 0)
		;
	return NULL;
}

static void test_console_fuzz(void **state)
{
	struct env *e = *state;
	pthread_t t;

	pthread_create(&t, NULL, drain, &e->out[0]);
	assert_int_equal(write(e->in[1], "some input for the guest", 24), 24);
	fuzz(e, 2, 300);
	loop_thread_stop(&e->loop);
	term_close(e->term);
	loop_fini(&e->loop.loop);
	e->term = NULL;
	close(e->out[1]);
	pthread_join(t, NULL);
	close(e->out[0]);
	close(e->in[0]);
	close(e->in[1]);
}

#define BLK(test) cmocka_unit_test_setup_teardown(test, blk_setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		BLK(test_blk_config),
		BLK(test_blk_io),
		BLK(test_blk_errors),
		BLK(test_blk_full),
		BLK(test_blk_wipe),
		cmocka_unit_test_setup_teardown(test_blk_read_only, blk_setup_ro, teardown),
		BLK(test_blk_layouts),
		BLK(test_indirect),
		BLK(test_batch),
		BLK(test_event_idx),
		BLK(test_no_interrupt_flag),
		BLK(test_intx),
		BLK(test_msix_mask),
		BLK(test_features),
		BLK(test_broken_rings),
		BLK(test_reset_in_flight),
		BLK(test_blk_fuzz),
		cmocka_unit_test_setup_teardown(test_rng, rng_setup, teardown),
		cmocka_unit_test_setup_teardown(test_console, console_setup, teardown),
		cmocka_unit_test_setup_teardown(test_console_fuzz, console_setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
