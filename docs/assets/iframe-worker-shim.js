/* Search in pages that are opened from a folder: browsers start no workers there, so the worker's script runs in a frame. */
(() => {
  if (location.protocol !== "file:") return;
  class FrameWorker extends EventTarget {
    constructor(url) {
      super();
      this.waiting = [];
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      this.inside = frame.contentWindow;
      const page = frame.contentDocument;
      page.open();
      page.write("<!doctype html><body></body>");
      page.close();
      this.inside.IFrameWorker = FrameWorker;
      this.inside.importScripts = () => {};
      this.inside.postMessage = (data) => this.tell(this, MessageEvent, data);
      const script = page.createElement("script");
      script.src = url;
      script.onload = () => {
        for (const data of this.waiting) this.tell(this.inside, this.inside.MessageEvent, data);
        this.waiting = null;
      };
      page.body.append(script);
    }
    tell(target, kind, data) {
      const event = new kind("message", { data });
      target.dispatchEvent(event);
      if (typeof target.onmessage === "function" && target === this) target.onmessage(event);
    }
    postMessage(data) {
      if (this.waiting) this.waiting.push(data);
      else this.tell(this.inside, this.inside.MessageEvent, data);
    }
    terminate() {}
  }
  window.IFrameWorker = FrameWorker;
  window.Worker = FrameWorker;
})();
