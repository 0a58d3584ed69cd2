/** Audio worklet that posts what it hears, `Float32Array` of each channel. */
class Capture extends AudioWorkletProcessor {
  process([channels]) {
    if (channels.length) this.port.postMessage(channels.map((channel) => channel.slice()));
    return true;
  }
}
registerProcessor("capture", Capture);
