// Texts whose contrast with their ground is below WCAG's 4.5.
() => {
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((v) => v / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const numbers = (colour) => {
    const found = colour.match(/[\d.]+/g).map(Number);
    const factor = colour.startsWith("color(") ? 255 : 1;
    return [...found.slice(0, 3).map((v) => v * factor), found[3] ?? 1];
  };
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = numbers(getComputedStyle(e).backgroundColor);
      if (colour[3] > 0.85) return colour.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    const seen = element.checkVisibility() && !element.closest(".off-screen, .skip");
    if (!own || !seen || element instanceof SVGElement) continue;
    const colours = [numbers(getComputedStyle(element).color).slice(0, 3), ground(element)];
    const [light, dark] = colours.map(luminance).sort((x, y) => y - x);
    const ratio = (light + 0.05) / (dark + 0.05);
    const name = element.className || element.tagName;
    if (ratio < 4.5) poor.push(`${name}: ${element.textContent.slice(0, 30)} ${ratio.toFixed(2)}`);
  }
  return poor;
}
