// A hand is on the controls: whether the kernel has said since what that means, and whether it listens at all.
import { PING } from "./wire.js";

const PATIENT = 900; // ms that a kernel has to answer

export class Doubt {
	/**
	 * @param {(content: Record<string, unknown>) => void} send
	 * @param {() => void} changed
	 */
	constructor(send, changed) {
		this.send = send;
		this.changed = changed;
		this.stale = false; // a hand was there, and the kernel has not said since what that means
		this.deaf = false; // it was asked and has not answered
		this.timer = 0; // of a question that is on its way
		this.again = false; // that one was asked before the hand: its answer says nothing of it
	}

	/**
	 * What is on show may no longer be what the controls say.
	 * @param {boolean} stale
	 */
	touch(stale) {
		if (stale === this.stale) return;
		this.stale = stale;
		this.changed();
	}

	/** Ask the kernel, who answers with the truth and then with a message; where none comes in time, that is said. */
	ask() {
		this.again = Boolean(this.timer);
		if (this.again) return;
		this.send({ kind: PING });
		this.timer = setTimeout(() => {
			this.deaf = true;
			this.changed();
		}, PATIENT);
	}

	/** The kernel was heard. */
	heard() {
		const { again } = this;
		this.close();
		this.deaf = false;
		if (again) this.ask();
	}

	/** It said what is true. */
	told() {
		if (!this.again) this.stale = false;
	}

	close() {
		clearTimeout(this.timer);
		this.timer = 0;
		this.again = false;
	}
}
