"use strict";
// A button on each block of code copies it, without the prompts and output of a transcript.
const copied = (text) => {
  const commands = text.split("\n").filter((line) => line.startsWith("$ "));
  return commands.length ? commands.map((line) => line.slice(2)).join("\n") : text.trimEnd();
};
document.addEventListener("DOMContentLoaded", () => {
  if (!navigator.clipboard) return; // only pages of https, and of this machine, may write to it
  for (const block of document.querySelectorAll("div.highlight")) {
    const button = document.createElement("button");
    button.className = "copy";
    button.type = "button";
    button.textContent = "Copy";
    button.setAttribute("aria-label", "Copy this code");
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(copied(block.querySelector("pre").textContent));
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy"), 2000);
    });
    block.append(button);
  }
});
