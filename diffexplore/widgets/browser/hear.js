// Sounds as they come: WAV of 16 bits, with the plain head that Python's module writes.

const HEAD = 44; // bytes before the samples

/**
 * The samples of a WAV file, channel by channel, from -1 to 1, and how many a second.
 * @param {Uint8Array} bytes
 */
export function heardOf(bytes) {
	const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
	const count = view.getUint16(22, true);
	const length = Math.floor((bytes.byteLength - HEAD) / 2 / count);
	const channels = Array.from({ length: count }, (_, channel) => Float32Array.from({ length }, (_, k) => view.getInt16(HEAD + 2 * (k * count + channel), true) / 32767));
	return { channels, rate: view.getUint32(24, true) };
}
