// Unpacks the recording that stands in the page and plays it. Nothing is fetched.
"use strict";
(async () => {
  const box = document.getElementById("player");
  const note = document.getElementById("no-player");
  try {
    const packed = Uint8Array.from(atob(document.getElementById("recording").textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const data = await new Response(stream).text();
    note.hidden = true;
    AsciinemaPlayer.create({ data }, box, {
      fit: "width",
      idleTimeLimit: 2,
      controls: true,
      preload: true,
      poster: `npt:${box.dataset.poster}`,
      terminalFontFamily: "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace",
    });
  } catch (error) {
    note.hidden = false;
    note.textContent = `The recording cannot be played here: ${error}`;
  }
})();
