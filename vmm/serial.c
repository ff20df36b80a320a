// SPDX-License-Identifier: MIT
/*
 * 16550A UART.
 *
 * The receive FIFO is a window on the head of the terminal's input queue: a byte leaves the queue
 * only when the guest reads it from RBR.  So a FIFO reset discards nothing that was typed (it is as
 * if the byte had been a moment later on the wire), and input that waits from before the guest's
 * driver started, as with `echo command | umbra run`, survives the driver's probing.  For the same
 * reason the window opens only when the guest listens: when the receive interrupt is enabled, or
 * when it polls LSR and does nothing else.
 *
 * The character timeout interrupt comes at once instead of after four character times: no more input
 * is coming than what is there.
 */
#include "serial.h"

#include <linux/serial_reg.h>
#include <pthread.h>
#include <stdlib.h>

#include "terminal.h"

#define FIFO_SIZE 16
/* LSR reads in a row, with nothing else in between, that show a guest waiting for input. */
#define POLLS_TO_LISTEN 8

struct serial {
	struct board *board;
	unsigned gsi;
	struct terminal *term;
	bool input;

	pthread_mutex_t lock;
	u8 ier, fcr, lcr, mcr, scr, dll, dlm;
	u8 lsr_errors;	/* UART_LSR_OE..., cleared by a read of LSR */
	u8 msr_delta;	/* UART_MSR_ANY_DELTA bits, cleared by a read of MSR */
	bool thr_event; /* the THR-empty interrupt is pending */
	unsigned lsr_polls;
	u8 rx[FIFO_SIZE];
	unsigned rx_n;
	bool line;
};

static bool fifo_on(const struct serial *s)
{
	return s->fcr & UART_FCR_ENABLE_FIFO;
}

static bool loopback(const struct serial *s)
{
	return s->mcr & UART_MCR_LOOP;
}

static unsigned rx_size(const struct serial *s)
{
	return fifo_on(s) ? FIFO_SIZE : 1;
}

/* Extend the window on the terminal's queue as far as it goes. */
static void rx_refill(struct serial *s)
{
	size_t avail;

	if (!s->input || loopback(s))
		return;
	if (!(s->ier & UART_IER_RDI) && s->lsr_polls < POLLS_TO_LISTEN)
		return;
	avail = term_avail(s->term);
	while (s->rx_n < rx_size(s) && s->rx_n < avail) {
		s->rx[s->rx_n] = term_peek(s->term, s->rx_n);
		s->rx_n++;
	}
}

static u8 rx_pop(struct serial *s)
{
	u8 c;

	if (!s->rx_n)
		return 0;
	c = s->rx[0];
	s->rx_n--;
	for (unsigned i = 0; i < s->rx_n; i++)
		s->rx[i] = s->rx[i + 1];
	if (!loopback(s))
		term_consume(s->term, 1);
	return c;
}

static unsigned rx_trigger(const struct serial *s)
{
	static const u8 level[4] = { 1, 4, 8, 14 };

	return fifo_on(s) ? level[s->fcr >> 6] : 1;
}

/* The pending interrupt of highest priority, as IIR shows it (data sheet, table 4). */
static u8 interrupt_id(const struct serial *s)
{
	if ((s->ier & UART_IER_RLSI) && s->lsr_errors)
		return UART_IIR_RLSI;
	if ((s->ier & UART_IER_RDI) && s->rx_n >= rx_trigger(s))
		return UART_IIR_RDI;
	if ((s->ier & UART_IER_RDI) && s->rx_n)
		return UART_IIR_RX_TIMEOUT;
	if ((s->ier & UART_IER_THRI) && s->thr_event)
		return UART_IIR_THRI;
	if ((s->ier & UART_IER_MSI) && s->msr_delta)
		return UART_IIR_MSI;
	return UART_IIR_NO_INT;
}

/* On a PC, OUT2 connects the interrupt output to the line; loopback mode disconnects it. */
static void update_line(struct serial *s)
{
	bool level = interrupt_id(s) != UART_IIR_NO_INT && (s->mcr & UART_MCR_OUT2) && !loopback(s);

	if (level != s->line) {
		s->line = level;
		board_set_line(s->board, s->gsi, level);
	}
}

/* Modem status lines: a cable to a terminal that is there, or MCR looped back. */
static u8 modem_lines(const struct serial *s)
{
	u8 v = 0;

	if (!loopback(s))
		return UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS;
	if (s->mcr & UART_MCR_DTR)
		v |= UART_MSR_DSR;
	if (s->mcr & UART_MCR_RTS)
		v |= UART_MSR_CTS;
	if (s->mcr & UART_MCR_OUT1)
		v |= UART_MSR_RI;
	if (s->mcr & UART_MCR_OUT2)
		v |= UART_MSR_DCD;
	return v;
}

static u8 read_lsr(struct serial *s)
{
	u8 v;

	if (s->lsr_polls < POLLS_TO_LISTEN)
		s->lsr_polls++;
	rx_refill(s);
	v = UART_LSR_THRE | UART_LSR_TEMT | s->lsr_errors;
	if (s->rx_n)
		v |= UART_LSR_DR;
	s->lsr_errors = 0;
	return v;
}

static u8 read_iir(struct serial *s)
{
	u8 v = interrupt_id(s);

	if (v == UART_IIR_THRI)
		s->thr_event = false;
	return fifo_on(s) ? v | 0xc0 : v;
}

static u8 read_reg(struct serial *s, unsigned reg)
{
	u8 v;

	switch (reg) {
	case UART_RX:
		if (s->lcr & UART_LCR_DLAB)
			return s->dll;
		v = rx_pop(s);
		rx_refill(s);
		return v;
	case UART_IER:
		return s->lcr & UART_LCR_DLAB ? s->dlm : s->ier;
	case UART_IIR:
		return read_iir(s);
	case UART_LCR:
		return s->lcr;
	case UART_MCR:
		return s->mcr;
	case UART_LSR:
		return read_lsr(s);
	case UART_MSR:
		v = modem_lines(s) | s->msr_delta;
		s->msr_delta = 0;
		return v;
	default:
		return s->scr;
	}
}

static void transmit(struct serial *s, u8 c)
{
	s->thr_event = false;
	update_line(s);
	if (!loopback(s)) {
		/* May block; the loop's thread must be able to bring input meanwhile. */
		pthread_mutex_unlock(&s->lock);
		term_write(s->term, &c, 1);
		pthread_mutex_lock(&s->lock);
	} else if (s->rx_n < rx_size(s)) {
		s->rx[s->rx_n++] = c;
	} else {
		if (!fifo_on(s))
			s->rx[0] = c; /* without FIFOs the new character replaces the old */
		s->lsr_errors |= UART_LSR_OE;
	}
	s->thr_event = true;
}

static void write_fcr(struct serial *s, u8 v)
{
	/* Switching the FIFOs on or off clears them; the other bits count only with bit 0 set. */
	if ((v ^ s->fcr) & UART_FCR_ENABLE_FIFO)
		v |= UART_FCR_CLEAR_RCVR;
	s->fcr = v & UART_FCR_ENABLE_FIFO ? v & (UART_FCR_ENABLE_FIFO | UART_FCR_TRIGGER_MASK) : 0;
	if (v & UART_FCR_CLEAR_RCVR)
		s->rx_n = 0;
	rx_refill(s);
}

static void write_mcr(struct serial *s, u8 v)
{
	u8 old = modem_lines(s), changed;

	/* Entering or leaving loopback: what the FIFO holds belongs to the other source. */
	if ((v ^ s->mcr) & UART_MCR_LOOP)
		s->rx_n = 0;
	s->mcr = v & 0x1f;
	changed = old ^ modem_lines(s);
	s->msr_delta |= (changed >> 4) & (UART_MSR_DCTS | UART_MSR_DDSR | UART_MSR_DDCD);
	if ((changed & UART_MSR_RI) && (old & UART_MSR_RI))
		s->msr_delta |= UART_MSR_TERI;
	rx_refill(s);
}

static void write_reg(struct serial *s, unsigned reg, u8 v)
{
	switch (reg) {
	case UART_TX:
		if (s->lcr & UART_LCR_DLAB)
			s->dll = v;
		else
			transmit(s, v);
		break;
	case UART_IER:
		if (s->lcr & UART_LCR_DLAB) {
			s->dlm = v;
			break;
		}
		/* Enabling the THR interrupt while THR is empty raises it. */
		if ((v & UART_IER_THRI) && !(s->ier & UART_IER_THRI))
			s->thr_event = true;
		s->ier = v & 0x0f;
		rx_refill(s);
		break;
	case UART_FCR:
		write_fcr(s, v);
		break;
	case UART_LCR:
		s->lcr = v;
		break;
	case UART_MCR:
		write_mcr(s, v);
		break;
	case UART_SCR:
		s->scr = v;
		break;
	default: /* LSR and MSR are read-only */
		break;
	}
}

void serial_io(void *opaque, u64 offset, void *data, unsigned len, bool write)
{
	struct serial *s = opaque;
	unsigned reg = (unsigned)offset & 7;
	u8 *p = data;

	(void)len;
	pthread_mutex_lock(&s->lock);
	if (write || reg != UART_LSR)
		s->lsr_polls = 0;
	if (write)
		write_reg(s, reg, *p);
	else
		*p = read_reg(s, reg);
	update_line(s);
	pthread_mutex_unlock(&s->lock);
}

void serial_input(void *opaque)
{
	struct serial *s = opaque;

	pthread_mutex_lock(&s->lock);
	rx_refill(s);
	update_line(s);
	pthread_mutex_unlock(&s->lock);
}

struct serial *serial_new(struct board *board, unsigned gsi, struct terminal *term, bool input)
{
	struct serial *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->board = board;
	s->gsi = gsi;
	s->term = term;
	s->input = input;
	s->dll = 12; /* 9600 baud, as a BIOS leaves it */
	s->thr_event = true;
	pthread_mutex_init(&s->lock, NULL);
	return s;
}

void serial_free(struct serial *s)
{
	if (!s)
		return;
	pthread_mutex_destroy(&s->lock);
	free(s);
}
